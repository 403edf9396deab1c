"""`manage.py set_parameters`: all changes or none."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from aitbc.accounts import parameters
from aitbc.accounts.models import ParameterChange


def test_parameters_change_together_and_the_old_values_are_told(db):
    out = StringIO()

    call_command("set_parameters", "lease_seconds=9", "dead_seconds=20", "--json", stdout=out)

    assert json.loads(out.getvalue()) == {
        "before": {"lease_seconds": 60, "dead_seconds": 60},
        "now": {"lease_seconds": 9, "dead_seconds": 20},
    }
    assert (parameters.get("lease_seconds"), parameters.get("dead_seconds")) == (9, 20)
    assert ParameterChange.objects.count() == 2


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("dead_seconds=999999", "out_of_bounds"),
        ("nothing=1", "parameter.unknown"),
        ("dead_seconds", "NAME=VALUE"),
        ("dead_seconds=-5", "NAME=VALUE"),
        ("dead_seconds=²", "NAME=VALUE"),
    ],
)
def test_one_wrong_change_leaves_all_as_they_were(db, wrong, reason):
    with pytest.raises(CommandError, match=reason):
        call_command("set_parameters", "lease_seconds=9", wrong)

    assert parameters.get("lease_seconds") == 60
    assert ParameterChange.objects.count() == 0
