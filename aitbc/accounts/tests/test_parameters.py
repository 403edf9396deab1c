"""Governed parameters: bounds hold in Python and in the database, every change is remembered."""

import pytest
from django.db import IntegrityError, transaction

from aitbc.accounts import parameters
from aitbc.accounts.models import Parameter, ParameterChange, User
from aitbc.core import db
from aitbc.core.errors import Invalid, NotFound


@pytest.fixture(autouse=True)
def _database(request):
    request.getfixturevalue("committed_db" if "committed_db" in request.fixturenames else "db")


@pytest.mark.parametrize("definition", parameters.DEFINITIONS, ids=lambda d: d.name)
def test_every_parameter_starts_at_its_default_within_its_bounds(definition):
    assert definition.minimum <= definition.default <= definition.maximum
    assert parameters.get(definition.name) == definition.default
    assert db.value("SELECT parameter_value(%s)", (definition.name,)) == definition.default


def test_names_are_told_apart():
    names = [definition.name for definition in parameters.DEFINITIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("bound", ["minimum", "maximum"])
def test_a_bound_itself_is_allowed(bound):
    definition = next(d for d in parameters.DEFINITIONS if d.name == "fee_bps")
    wanted = getattr(definition, bound)
    parameters.change(name="fee_bps", value=wanted, by=None)
    assert parameters.get("fee_bps") == wanted


@pytest.mark.parametrize("value", [-1, 2001, 10**38])
def test_beyond_a_bound_nothing_changes(value):
    with pytest.raises(Invalid) as caught:
        parameters.change(name="fee_bps", value=value, by=None)
    assert caught.value.code == "parameter.out_of_bounds"
    assert "0 and 2000 basis points" in caught.value.message
    assert parameters.get("fee_bps") == 250
    assert not ParameterChange.objects.exists()


@pytest.mark.parametrize("value", [-1, 2001])
def test_the_database_keeps_the_bounds_too(value):
    with pytest.raises(IntegrityError, match="parameter_within_bounds"), transaction.atomic():
        Parameter.objects.filter(pk="fee_bps").update(value=value)


def test_a_change_is_remembered_with_who_made_it():
    alice = User.objects.create_user("alice@example.com")
    parameters.change(name="fee_bps", value=300, by=alice)
    parameters.change(name="fee_bps", value=200, by=None)
    history = ParameterChange.objects.order_by("id").values_list("parameter_id", "old_value", "new_value", "changed_by")
    assert list(history) == [("fee_bps", 250, 300, alice.pk), ("fee_bps", 300, 200, None)]
    assert parameters.get("fee_bps") == 200


@pytest.mark.parametrize("name", ["", "fee", "fee_bps "])
def test_an_unknown_parameter_is_said_to_be_unknown(name):
    with pytest.raises(NotFound):
        parameters.get(name)
    with pytest.raises(NotFound):
        parameters.change(name=name, value=1, by=None)
    assert db.value("SELECT parameter_value(%s)", (name,)) is None


def test_changes_at_once_leave_a_history_without_gaps(committed_db, in_threads):
    in_threads(lambda i: parameters.change(name="fee_bps", value=300 + i, by=None), 8)
    steps = ParameterChange.objects.order_by("id").values_list("old_value", "new_value")
    assert [old for old, _ in steps] == [250, *[new for _, new in steps][:-1]]
    assert parameters.get("fee_bps") == [*steps][-1][1]


def test_seeding_again_keeps_what_was_changed(committed_db):
    parameters.change(name="fee_bps", value=300, by=None)
    parameters.seed("owner")
    assert parameters.get("fee_bps") == 300
