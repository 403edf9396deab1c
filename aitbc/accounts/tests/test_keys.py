"""API keys: shown once, kept as a hash, and worthless the moment they should be."""

import hashlib
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from aitbc.accounts import keys
from aitbc.accounts.models import ApiKey, User
from aitbc.core.errors import Invalid, NotFound
from aitbc.core.ids import uuid7

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice():
    return User.objects.create_user("alice@example.com", role="client")


@pytest.fixture(autouse=True)
def _as_another_process(monkeypatch):
    """Answers are remembered for a moment; these tests ask the database each time."""
    monkeypatch.setattr(keys, "_RECENT_SECONDS", 0.0)
    keys._recent.clear()


def test_a_key_speaks_for_its_user(alice):
    key, token = keys.create_key(user=alice, name="laptop", scopes=["jobs:read", "miner", "miner"])
    principal = keys.find_principal(token)
    assert principal is not None
    assert (principal.key_id, principal.user_id, principal.role) == (key.pk, alice.pk, "client")
    assert (principal.prefix, principal.scopes) == (key.prefix, {"jobs:read", "miner"})
    assert token.startswith(f"ait_{key.prefix}_")


def test_the_database_holds_the_hash_and_nowhere_the_secret(alice):
    key, token = keys.create_key(user=alice, name="laptop", scopes=["miner"])
    secret = token.removeprefix(f"ait_{key.prefix}_")
    with connection.cursor() as cursor:
        cursor.execute("SELECT k::text, secret_hash FROM accounts_apikey k WHERE id = %s", (key.pk,))
        text, stored = cursor.fetchone()
    assert bytes(stored) == hashlib.sha256(secret.encode()).digest()
    assert secret not in text
    assert secret not in f"{key} {key!r}"


def test_keys_differ_in_prefix_and_secret(alice):
    tokens = {keys.create_key(user=alice, name="k", scopes=["miner"])[1] for _ in range(20)}
    assert len({token[4:16] for token in tokens}) == 20
    assert len({token[17:] for token in tokens}) == 20


MALFORMED = {
    "empty": lambda t: "",
    "no prefix": lambda t: t.removeprefix("ait_"),
    "another scheme": lambda t: "aib" + t[3:],
    "only the prefix": lambda t: t[:16],
    "shorter": lambda t: t[:-1],
    "longer": lambda t: t + "A",
    "a space behind": lambda t: t + " ",
    "a line behind": lambda t: t + "\n",
    "a null byte": lambda t: t[:-1] + "\x00",
    "another secret": lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"),
    "another prefix": lambda t: t[:4] + "0" * 12 + t[16:],
    "upper case": lambda t: t[:4] + t[4:16].upper() + t[16:],
    "digits of another script": lambda t: t[:4] + "\u0661" * 12 + t[16:],
    "SQL": lambda t: t[:4] + "' OR '1'='1" + t[15:],
    "huge": lambda t: t * 1000,
}


@pytest.mark.parametrize("how", MALFORMED)
def test_any_other_token_is_nobody(how, alice):
    _, token = keys.create_key(user=alice, name="laptop", scopes=["miner"])
    assert keys.find_principal(MALFORMED[how](token)) is None
    assert keys.find_principal(token) is not None


def test_a_key_ends_when_it_expires(alice):
    key, token = keys.create_key(user=alice, name="k", scopes=["miner"], expires_at=timezone.now() + timedelta(hours=1))
    assert keys.find_principal(token) is not None
    ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert keys.find_principal(token) is None


def test_a_key_cannot_end_before_it_began(alice):
    with pytest.raises(Invalid) as caught:
        keys.create_key(user=alice, name="k", scopes=["miner"], expires_at=timezone.now())
    assert caught.value.code == "key.expires_at"
    assert not ApiKey.objects.exists()


def test_a_revoked_key_stops_at_once_and_for_good(alice):
    key, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    assert keys.find_principal(token) is not None

    revoked = keys.revoke_key(key_id=key.pk)

    assert keys.find_principal(token) is None
    assert keys.revoke_key(key_id=key.pk).revoked_at == revoked.revoked_at


def test_a_remembered_key_stops_at_once_where_it_is_revoked(alice, monkeypatch):
    monkeypatch.setattr(keys, "_RECENT_SECONDS", 60.0)
    key, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    assert keys.find_principal(token) is not None
    keys.revoke_key(key_id=key.pk)
    assert keys.find_principal(token) is None


def test_a_remembered_answer_costs_no_query_and_is_not_kept_for_strangers(
    alice, monkeypatch, django_assert_num_queries
):
    monkeypatch.setattr(keys, "_RECENT_SECONDS", 60.0)
    _, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    first = keys.find_principal(token)
    assert len(keys._recent) == 1
    monkeypatch.setattr(keys, "_look_up", lambda token: pytest.fail("asked again"))
    with django_assert_num_queries(0):
        assert keys.find_principal(token) == first
    monkeypatch.setattr(keys, "_look_up", lambda token: None)
    assert keys.find_principal(token + "x") is None
    assert len(keys._recent) == 1


def test_the_memory_of_keys_is_bounded(alice, monkeypatch):
    monkeypatch.setattr(keys, "_MOST_RECENT", 3)
    for _ in range(7):
        keys.find_principal(keys.create_key(user=alice, name="k", scopes=["miner"])[1])
    assert len(keys._recent) <= 3


def test_only_the_owner_revokes_when_one_is_named(alice):
    mallory = User.objects.create_user("mallory@example.com")
    key, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    with pytest.raises(NotFound):
        keys.revoke_key(key_id=key.pk, user=mallory)
    assert keys.find_principal(token) is not None
    keys.revoke_key(key_id=key.pk, user=alice)
    assert keys.find_principal(token) is None


def test_an_unknown_key_cannot_be_revoked():
    with pytest.raises(NotFound) as caught:
        keys.revoke_key(key_id=uuid7())
    assert caught.value.code == "key.unknown"


def test_an_inactive_users_keys_stop(alice):
    _, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert keys.find_principal(token) is None
    User.objects.filter(pk=alice.pk).update(is_active=True)
    assert keys.find_principal(token) is not None


def test_the_role_is_the_users_of_now(alice):
    _, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    User.objects.filter(pk=alice.pk).update(role="operator")
    assert keys.find_principal(token).role == "operator"


@pytest.mark.parametrize("scopes", [[], ["jobs"], ["*"], ["jobs:read", "jobs:admin"], ["JOBS:READ"], [""], ["miner:*"]])
def test_a_key_has_known_scopes(scopes, alice):
    with pytest.raises(Invalid) as caught:
        keys.create_key(user=alice, name="k", scopes=scopes)
    assert caught.value.code == "key.scopes"
    assert caught.value.context["errors"][0]["loc"] == ["body", "scopes"]
    assert not ApiKey.objects.exists()


def test_the_database_too_refuses_a_key_without_scopes(alice):
    with pytest.raises(IntegrityError, match="apikey_has_scopes"), transaction.atomic():
        ApiKey.objects.create(user=alice, name="k", prefix="x" * 12, secret_hash=b"0" * 32, scopes=[])


@pytest.mark.parametrize(
    ("scopes", "has", "lacks"),
    [
        (["jobs:read"], ["jobs:read"], ["jobs:write", "money:read", "miner", "jobs:*", "jobs"]),
        (["jobs:*"], ["jobs:read", "jobs:write", "jobs:later"], ["money:read", "miner", "jobsx:read"]),
        (["miner"], ["miner"], ["jobs:read", "miners"]),
        (["money:*", "miner"], ["money:write", "miner"], ["jobs:read", "offers:write"]),
    ],
)
def test_a_scope_covers_itself_and_a_star_its_group(alice, scopes, has, lacks):
    principal = keys.find_principal(keys.create_key(user=alice, name="k", scopes=scopes)[1])
    assert [scope for scope in (*has, *lacks) if principal.has(scope)] == has


def test_the_last_use_is_noted_once_a_minute(alice):
    key, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    assert key.last_used_at is None

    def use():
        assert keys.find_principal(token) is not None
        return ApiKey.objects.get(pk=key.pk).last_used_at

    first = use()
    assert abs(first - timezone.now()) < timedelta(seconds=5)
    assert use() == first
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=first - timedelta(seconds=61))
    assert use() > first


def test_a_wrong_secret_is_no_use(alice):
    key, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    assert keys.find_principal(token[:-3] + "AAA") is None
    assert ApiKey.objects.get(pk=key.pk).last_used_at is None
