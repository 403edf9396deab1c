"""The console's page on which the second person approves."""

import pytest
from django.test import Client
from django.urls import reverse

from aitbc.accounts import parameters
from aitbc.accounts.models import User
from aitbc.chain.testing import AIT, Actor
from aitbc.core.testing.cast import Person, person
from aitbc.core.testing.snapshot import snapshot
from apps.trading.models import Withdrawal
from apps.trading.services import reviews
from apps.trading.services.deposits import deposit_address
from apps.trading.services.withdrawals import withdraw

PASSWORD = "correct horse battery"


@pytest.fixture
def alice(net) -> Person:
    who = person("alice", scopes=("money:read", "money:write"))
    net.mint(deposit_address(user=who.id), 10 * AIT)
    net.settle()
    for name in ("address_wait_seconds", "withdrawal_approval_ait"):
        parameters.change(name=name, value=0, by=None)
    return who


@pytest.fixture
def item(net, alice) -> Withdrawal:
    return withdraw(user=alice.id, address=Actor(net.client).address, amount=AIT)


@pytest.fixture
def console(net) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("olga@example.com", PASSWORD))
    return client


def page(item: Withdrawal, name: str = "change") -> str:
    return reverse(f"admin:trading_withdrawal_{name}", args=[item.pk])


def form(item: Withdrawal, settings, **changes: str) -> dict[str, str]:
    phrase = (settings.KEYS_DIR / "approver" / "passphrase").read_text()
    fields = {"seen": reviews.payload(item), "password": PASSWORD, "passphrase": phrase}
    return {"_form_submitted": "True"} | fields | changes


def test_the_page_shows_the_hash_and_takes_the_approval(net, item, console, settings):
    shown = console.get(page(item)).content.decode()
    assert reviews.payload(item) in shown
    assert page(item, "approve_this") in shown

    console.post(page(item, "approve_this"), form(item, settings))

    net.settle()
    item.refresh_from_db()
    assert (item.state, item.approved_by.email) == ("final", "olga@example.com")
    after = console.get(page(item)).content.decode()
    assert page(item, "approve_this") not in after
    assert "olga@example.com" in after
    assert PASSWORD not in after


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"password": "another"}, "approval.password"),
        ({"passphrase": "another"}, "keystore.password"),
        ({"seen": "0x" + "00" * 32}, "approval.differs"),
    ],
)
def test_a_refusal_is_shown_and_changes_nothing(net, item, console, settings, change, code):
    before = snapshot("django_session")
    console.post(page(item, "approve_this"), form(item, settings, **change))
    assert snapshot("django_session") == before
    assert code in console.get(page(item)).content.decode()


def test_the_users_of_the_api_see_that_it_is_in_review(alice, item):
    shown = alice.get(f"/v1/withdrawals/{item.pk}").json()
    assert shown["state"] == "review"
    assert shown["review_until"] is not None
