"""Holds with a time-out end by the database's clock alone, exactly once."""

from dataclasses import replace

import pytest
from django.db import DataError

from aitbc.core import db
from apps.trading.models import HoldTimer, Transfer
from apps.trading.services import ledger
from apps.trading.services.audit import audit
from apps.trading.tests.books import account, balance, books, hold, post, time_passes, transfer, void


@pytest.fixture
def timed(committed_db):
    """A hold of 5 of 20 for a minute: its account, its id."""
    alice = account(20)
    item = hold(alice, 5, timeout=60)
    ledger.apply_all([item])
    return alice, item.id


def test_a_hold_counts_until_its_time_is_over(timed):
    alice, held = timed
    time_passes(59)
    assert (db.value("SELECT ledger_expire(10)"), balance(alice)) == (0, (20, 5))
    time_passes(1)
    assert (db.value("SELECT ledger_expire(10)"), balance(alice)) == (1, (20, 0))
    assert (db.value("SELECT ledger_expire(10)"), balance(alice)) == (0, (20, 0))
    assert Transfer.objects.get(id=held).state == "expired"
    assert list(Transfer.objects.filter(hold=held).values_list("state", "amount")) == [("expired", 5)]
    assert not HoldTimer.objects.exists()
    assert audit() == []


@pytest.mark.parametrize("swept", [False, True])
def test_a_hold_cannot_be_resolved_after_its_time_whether_swept_or_not(timed, swept):
    _, held = timed
    time_passes(60)
    if swept:
        assert db.value("SELECT ledger_expire(10)") == 1
    before = books()
    assert ledger.apply([post(held, account(), 5), void(held)]) == ["hold_already_expired"] * 2
    assert [row for row in books() if row in before] == before


def test_a_hold_resolved_in_time_is_left_alone_by_the_sweep(timed):
    alice, held = timed
    bob = account()
    ledger.apply_all([post(held, bob, 2)])
    time_passes(60)
    assert (db.value("SELECT ledger_expire(10)"), balance(alice), balance(bob)) == (0, (18, 0), (2, 0))
    assert not HoldTimer.objects.exists()


def test_the_sweep_takes_the_oldest_first_and_no_more_than_it_is_told(committed_db):
    alice = account(30)
    holds = [hold(alice, n, timeout=n) for n in (3, 1, 2)]
    ledger.apply_all(holds)
    time_passes(10)
    assert (db.value("SELECT ledger_expire(2)"), balance(alice)) == (2, (30, 3))
    assert (db.value("SELECT ledger_expire(2)"), balance(alice)) == (1, (30, 0))


def test_a_time_out_is_part_of_what_an_id_stands_for(committed_db):
    item = hold(account(10), 1, timeout=60)
    other, none = replace(item, timeout=61), replace(item, timeout=None)
    assert ledger.apply([item, item, other]) == ["ok", "exists", "exists_with_different_timeout"]
    assert ledger.apply([item, other, none]) == ["exists", *["exists_with_different_timeout"] * 2]


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_time_out_lies_ahead(committed_db, seconds):
    alice = account(10)
    before = books()
    assert ledger.apply([hold(alice, 1, timeout=seconds)]) == ["timeout_not_positive"]
    assert (books(), HoldTimer.objects.count()) == (before, 0)


def test_only_a_hold_has_a_time_out(committed_db):
    alice, bob = account(10), account()
    before = books()
    with pytest.raises(DataError, match="fields of another action"):
        ledger.apply([transfer(alice, bob, 1, timeout=5)])
    assert books() == before
