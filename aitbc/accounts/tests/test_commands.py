"""The operator's commands: passwords only by standard input, keys shown once, JSON for scripts."""

import io
import json
import sys

import pytest
from django.core.management import CommandError, call_command

from aitbc.accounts import keys, parameters
from aitbc.accounts.models import ApiKey, ParameterChange, User
from aitbc.core.ids import uuid7

pytestmark = pytest.mark.django_db
GOOD = "correct horse battery"


def run(*arguments, stdin="", monkeypatch=None):
    if monkeypatch:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def create(monkeypatch):
    def call(*arguments, password=GOOD):
        stdin = f"{password}\nmore\n" if password is not None else ""
        return json.loads(run("create_user", *arguments, "--json", stdin=stdin, monkeypatch=monkeypatch))

    return call


# -- create_user -------------------------------------------------------------------------------


def test_a_user_is_made_with_the_first_line_of_standard_input(create):
    answer = create("--email", "Alice@Example.COM", "--role", "miner", "--name", "Alice", "--password-stdin")
    user = User.objects.get()
    assert answer == {"id": str(user.pk), "email": "alice@example.com", "role": "miner"}
    assert (user.name, user.is_staff, user.is_superuser, user.is_active) == ("Alice", False, False, True)
    assert user.check_password(GOOD)
    assert user.password.startswith("argon2")


def test_without_a_password_nobody_can_sign_in(create):
    create("--email", "alice@example.com")
    assert not User.objects.get().has_usable_password()


def test_an_operator_may_enter_the_console(create):
    create("--email", "olga@example.com", "--role", "operator", "--password-stdin")
    user = User.objects.get()
    assert (user.is_staff, user.is_superuser) == (True, True)


@pytest.mark.parametrize("weak", ["", "short", "password1234", "alice@example.com"])
def test_a_weak_password_makes_no_user(create, weak):
    with pytest.raises(CommandError, match=r"too (short|common|similar)"):
        create("--email", "alice@example.com", "--password-stdin", password=weak)
    assert not User.objects.exists()


def test_the_password_is_no_argument(create):
    with pytest.raises(CommandError, match=r"unrecognized arguments|ambiguous"):
        create("--email", "alice@example.com", "--password", GOOD)
    assert not User.objects.exists()


@pytest.mark.parametrize("email", ["alice", "alice@", "@example.com", "a b@example.com", ""])
def test_an_address_has_its_form(create, email):
    with pytest.raises(CommandError, match="valid email"):
        create("--email", email)
    assert not User.objects.exists()


@pytest.mark.parametrize("email", ["alice@example.com", "ALICE@EXAMPLE.COM"])
def test_one_address_is_one_user(create, email):
    first = create("--email", "alice@example.com")
    with pytest.raises(CommandError, match="exists already"):
        create("--email", email)
    assert [str(pk) for pk in User.objects.values_list("pk", flat=True)] == [first["id"]]


def test_if_missing_prints_the_user_that_is_there_as_he_is(create):
    first = create("--email", "alice@example.com", "--role", "miner", "--password-stdin")
    again = create(
        "--email", "Alice@example.com", "--role", "operator", "--if-missing", "--password-stdin", password="other"
    )
    assert again == first
    assert User.objects.get().check_password(GOOD)


def test_if_missing_makes_who_is_missing(create):
    assert create("--email", "alice@example.com", "--if-missing")["email"] == "alice@example.com"


def test_people_read_a_line(monkeypatch):
    out = run("create_user", "--email", "alice@example.com", monkeypatch=monkeypatch)
    assert out.startswith("alice@example.com (client) ")


# -- create_api_key and revoke_api_key ---------------------------------------------------------


@pytest.fixture
def alice():
    return User.objects.create_user("alice@example.com")


def test_a_key_is_made_and_works(alice):
    arguments = ("--user", "Alice@example.com", "--scopes", "jobs:write, miner,", "--name", "box")
    answer = json.loads(run("create_api_key", *arguments, "--json"))
    key = ApiKey.objects.get()
    assert answer == {"id": str(key.pk), "key": answer["key"], "scopes": ["jobs:write", "miner"]}
    assert key.name == "box"
    assert keys.find_principal(answer["key"]).user_id == alice.pk


def test_people_see_the_key_on_a_line_of_its_own(alice):
    first, second, *_ = run("create_api_key", "--user", alice.email, "--scopes", "miner").splitlines()
    assert keys.find_principal(first) is not None
    assert second == f"(id {ApiKey.objects.get().pk}; shown this once)"


@pytest.mark.parametrize("scopes", ["", ",", "jobs:fly", "jobs:read,root"])
def test_a_key_of_unknown_scopes_is_not_made(alice, scopes):
    with pytest.raises(CommandError, match="scope"):
        run("create_api_key", "--user", alice.email, "--scopes", scopes)
    assert not ApiKey.objects.exists()


def test_a_key_of_nobody_is_not_made():
    with pytest.raises(CommandError, match=r"there is no user bob@example\.com"):
        run("create_api_key", "--user", "bob@example.com", "--scopes", "miner")


def test_a_key_is_revoked(alice):
    key, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    answer = json.loads(run("revoke_api_key", str(key.pk), "--json"))
    key.refresh_from_db()
    assert answer == {"id": str(key.pk), "revoked_at": str(key.revoked_at)}
    assert keys.find_principal(token) is None
    assert run("revoke_api_key", str(key.pk)) == f"ait_{key.prefix}_… is revoked\n"


def test_an_unknown_key_is_not_revoked():
    with pytest.raises(CommandError, match="no such key"):
        run("revoke_api_key", str(uuid7()))
    with pytest.raises(CommandError, match="invalid UUID"):
        run("revoke_api_key", "ait_whatever")


# -- set_parameters ----------------------------------------------------------------------------


def test_parameters_are_set_together():
    answer = json.loads(run("set_parameters", "fee_bps=300", "lease_seconds=30", "--json"))
    assert answer["now"] == {"fee_bps": 300, "lease_seconds": 30}
    assert answer["before"] == {"fee_bps": 250, "lease_seconds": 60}
    assert (parameters.get("fee_bps"), parameters.get("lease_seconds")) == (300, 30)


@pytest.mark.parametrize("bad", ["fee_bps=2001", "fees=1", "fee_bps", "fee_bps=-1", "fee_bps=1.5", "=1"])
def test_one_bad_parameter_leaves_all_as_they_were(bad):
    with pytest.raises(CommandError):
        run("set_parameters", "lease_seconds=30", bad)
    assert parameters.get("lease_seconds") == 60
    assert not ParameterChange.objects.exists()
