"""The audit log: written with the deed or not at all, only added to, and any change to it is found."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.test import Client
from django.utils import timezone

from aitbc.accounts import keys, parameters
from aitbc.accounts.models import AuditEvent, Parameter, Role, User
from aitbc.core import db
from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import person
from apps.trading.models import Withdrawal
from apps.trading.services.audit import audit as audit_ledger
from apps.trading.tests.books import sealed

pytestmark = pytest.mark.usefixtures("committed_db")
PASSWORD = "correct horse battery"


@pytest.fixture
def operator():
    return User.objects.create_superuser("root@example.com", PASSWORD)


def events(action=None):
    found = AuditEvent.objects.order_by("number")
    return list(found.filter(action=action) if action else found)


def verify():
    out = StringIO()
    call_command("audit_log", verify=True, as_json=True, stdout=out)
    return json.loads(out.getvalue())


def as_owner(statement, *params):
    """What an intruder with the owner's rights would do: triggers off, then the change."""
    with connections["owner"].cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        try:
            cursor.execute(statement, params)
        finally:
            cursor.execute("SET session_replication_role = origin")


# -- what is written ---------------------------------------------------------------------------


def test_a_key_made_and_revoked_is_noted_without_its_secret(operator):
    key, token = keys.create_key(user=operator, name="rig", scopes=["jobs:read"])
    keys.revoke_key(key_id=key.pk)
    keys.revoke_key(key_id=key.pk)  # changes nothing, so nothing is noted

    made, revoked = events("key.created"), events("key.revoked")
    assert [len(made), len(revoked)] == [1, 1]
    assert (made[0].subject, made[0].actor, made[0].before) == (f"key:{key.pk}", "platform", None)
    assert (made[0].after["scopes"], made[0].after["prefix"]) == (["jobs:read"], key.prefix)
    assert "secret_hash" not in made[0].after
    assert token.rsplit("_", 1)[1] not in json.dumps(made[0].after)
    assert list(revoked[0].before) == list(revoked[0].after) == ["revoked_at"]


def test_using_a_key_is_not_noted(operator):
    _, token = keys.create_key(user=operator, name="rig", scopes=["jobs:read"])
    before = AuditEvent.objects.count()
    assert keys.find_principal(token) is not None
    assert AuditEvent.objects.count() == before


def test_a_role_changed_is_noted_with_both_values_and_a_password_with_neither(operator):
    user = User.objects.create_user("carol@example.com", PASSWORD)
    user.role = Role.OPERATOR
    user.set_password("another long password")
    user.save()

    [changed] = events("user.changed")
    assert changed.subject == f"user:{user.pk}"
    assert changed.before == {"role": "client", "password": "hidden"}
    assert changed.after == {"role": "operator", "password": "hidden"}
    assert "argon2" not in json.dumps([event.after for event in events()])


def test_a_parameter_changed_is_noted_by_raw_sql_too(operator):
    parameters.change(name="fee_bps", value=300, by=operator)
    with connections["owner"].cursor() as cursor:
        cursor.execute("UPDATE accounts_parameter SET value = 301 WHERE name = 'fee_bps'")

    found = [(event.before, event.after) for event in events("parameter.changed")]
    assert found == [({"value": 250}, {"value": 300}), ({"value": 300}, {"value": 301})]


def test_what_is_rolled_back_is_not_noted(operator):
    before = AuditEvent.objects.count()
    with pytest.raises(RuntimeError):
        _change_and_fail()
    assert (AuditEvent.objects.count(), parameters.get("fee_bps")) == (before, 250)


@transaction.atomic
def _change_and_fail():
    parameters.change(name="fee_bps", value=300, by=None)
    raise RuntimeError


def test_the_web_says_who_from_where_and_in_which_request(operator):
    foreign = person("mallory").token  # whose key it is says nothing where only sessions count
    client = Client(headers={"X-Request-ID": "request-0001", "Authorization": f"Bearer {foreign}"})
    assert client.login(username=operator.email, password=PASSWORD)
    form = {"value": "400", "changes-TOTAL_FORMS": "0", "changes-INITIAL_FORMS": "0"}
    response = client.post("/admin/accounts/parameter/fee_bps/change/", form, REMOTE_ADDR="192.0.2.7")
    assert response.status_code == 302, response.content

    [changed] = events("parameter.changed")
    assert (changed.actor, changed.request_id, changed.address) == (str(operator.pk), "request-0001", "192.0.2.7")
    assert changed.after == {"value": 400}
    [by_hand] = events("admin.changed")
    assert (by_hand.subject, by_hand.actor) == ("admin:fee_bps", str(operator.pk))
    assert db.value("SELECT current_setting('aitbc.audit', true)") == ""  # forgotten with the request


def test_signing_in_and_failing_to_is_noted(operator):
    client = Client()
    client.post("/admin/login/", {"username": operator.email, "password": "wrong"}, REMOTE_ADDR="192.0.2.8")
    client.post("/admin/login/", {"username": operator.email, "password": PASSWORD}, REMOTE_ADDR="192.0.2.9")

    [failed], [succeeded] = events("login.failed"), events("login.succeeded")
    assert (failed.after, failed.address) == ({"email": operator.email}, "192.0.2.8")
    assert (failed.actor, failed.subject) == ("anonymous", "user:unknown")
    assert (succeeded.subject, succeeded.address) == (f"user:{operator.pk}", "192.0.2.9")
    assert "wrong" not in json.dumps(failed.after)


def test_over_http_the_key_that_was_used_is_the_actor():
    carol = person("carol")
    response = carol.patch("/api/accounts/me", {"name": "Carol"})
    assert response.status_code == 200, response.content
    [event] = events("user.changed")
    assert (event.actor, event.subject) == (f"key:{carol.principal.prefix}", f"user:{carol.id}")
    assert (event.before, event.after) == ({"name": ""}, {"name": "Carol"})
    assert event.request_id == response["X-Request-ID"]


def test_a_withdrawal_canceled_is_noted_and_one_that_goes_on_is_not(operator):
    noted = None
    for state in ("canceled", "failed"):
        item = Withdrawal.objects.create(
            id=uuid7(), user=operator, network="ait-devnet", address="0x" + "1" * 40, amount=5,
            created_at=timezone.now(), not_before=timezone.now(),
        )  # fmt: skip
        Withdrawal.objects.filter(pk=item.pk).update(state=state, resolved_at=timezone.now())
        noted = noted or item  # the first
    assert [event.subject for event in events() if event.action.startswith("withdrawal")] == [f"withdrawal:{noted.pk}"]
    [event] = events("withdrawal.canceled")
    assert (event.before["state"], event.after["state"]) == ("waiting", "canceled")


def test_without_the_database_a_change_is_refused_not_done_by_nobody(operator, monkeypatch):
    carol = person("carol")

    def away(*_):
        raise DatabaseError

    monkeypatch.setattr("aitbc.accounts.audit.db.rows", away)
    response = carol.patch("/api/accounts/me", {"name": "Carol"})
    assert (response.status_code, response.json()["code"]) == (503, "database.unavailable")
    assert User.objects.get(pk=carol.id).name == ""


# -- that it stays -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts_auditevent SET actor = 'nobody'",
        "DELETE FROM accounts_auditevent",
        "TRUNCATE accounts_auditevent",
        "INSERT INTO accounts_auditevent SELECT * FROM accounts_auditevent",
    ],
)
@pytest.mark.parametrize("role", ["default", "owner"])
def test_no_role_changes_it(operator, statement, role):
    before = events()
    with pytest.raises(DatabaseError), connections[role].cursor() as cursor:
        cursor.execute(statement)
    assert [event.head for event in events()] == [event.head for event in before] != []


def _several(operator):
    for value in (300, 310, 320, 330):
        parameters.change(name="fee_bps", value=value, by=operator)
    assert verify()["ok"] is True


PLANTED = {
    "actor": "UPDATE accounts_auditevent SET actor = 'somebody' WHERE number = 3",
    "action": "UPDATE accounts_auditevent SET action = 'parameter.created' WHERE number = 3",
    "subject": "UPDATE accounts_auditevent SET subject = 'parameter:other' WHERE number = 3",
    "before": "UPDATE accounts_auditevent SET before = '{\"value\": 1}' WHERE number = 3",
    "after": "UPDATE accounts_auditevent SET after = NULL WHERE number = 3",
    "time": "UPDATE accounts_auditevent SET at = at + interval '1 microsecond' WHERE number = 3",
    "transaction": "UPDATE accounts_auditevent SET xact = xact + 1 WHERE number = 3",
    "request": "UPDATE accounts_auditevent SET request_id = 'x' WHERE number = 3",
    "address": "UPDATE accounts_auditevent SET address = 'x' WHERE number = 3",
    "head": "UPDATE accounts_auditevent SET head = sha256('x') WHERE number = 3",
    "a row taken out": "DELETE FROM accounts_auditevent WHERE number = 2",
    "the first taken out": "DELETE FROM accounts_auditevent WHERE number < 3",
    "a row put in": """INSERT INTO accounts_auditevent SELECT 3, at, xact, actor, action, subject, before,
        after, request_id, address, head FROM accounts_auditevent WHERE number = 2""",
    "two swapped": """UPDATE accounts_auditevent SET number = CASE number WHEN 3 THEN -4 ELSE -3 END
        WHERE number IN (3, 4); UPDATE accounts_auditevent SET number = -number WHERE number < 0""",
}  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_change_is_named_by_its_row(operator, kind):
    _several(operator)
    if kind == "a row put in":
        as_owner("DELETE FROM accounts_auditevent WHERE number = 3")
    as_owner(PLANTED[kind])
    with pytest.raises(CommandError, match="the audit log is NOT sound: row 3: "):
        verify()


def test_a_cut_end_is_found_by_the_ledgers_journal_which_each_settlement_anchors(operator):
    _several(operator)
    assert sealed() is not None
    assert audit_ledger() == []
    as_owner("DELETE FROM accounts_auditevent WHERE number = (SELECT max(number) FROM accounts_auditevent)")
    assert verify()["ok"] is True
    assert [finding.rule for finding in audit_ledger()] == ["journal_chain_verifies"]


def test_many_at_once_make_one_chain_without_gaps(operator, in_threads):
    def change(index):
        for value in range(5):
            Parameter.objects.filter(name=names[index]).update(value=20 + value)

    names = ["fee_bps", "lease_seconds", "suspect_seconds", "dead_seconds", "max_job_seconds", "challenge_seconds"]
    in_threads(change, 6)
    changed = events("parameter.changed")
    assert len(changed) >= 25
    assert [event.number for event in events()] == list(range(1, AuditEvent.objects.count() + 1))
    assert verify()["ok"] is True


def test_an_event_that_cannot_be_written_undoes_the_deed(operator):
    with connections["owner"].cursor() as cursor:
        cursor.execute("ALTER TABLE accounts_auditevent ADD CONSTRAINT none CHECK (action <> 'parameter.changed')")
        try:
            with pytest.raises(IntegrityError):
                parameters.change(name="fee_bps", value=300, by=operator)
        finally:
            cursor.execute("ALTER TABLE accounts_auditevent DROP CONSTRAINT none")
    assert parameters.get("fee_bps") == 250
