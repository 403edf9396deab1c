"""Random batches against the ledger and against the oracle: every code, every balance, every time."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from aitbc.core import db
from aitbc.core.errors import Conflict
from aitbc.core.ids import uuid7
from apps.trading.models import Asset
from apps.trading.services import ledger
from apps.trading.services.audit import audit
from apps.trading.services.ledger import Item
from apps.trading.services.reversals import reverse
from apps.trading.tests.books import account, balance, outside, time_passes
from apps.trading.tests.oracle import Account, Oracle

pytestmark = pytest.mark.usefixtures("committed_db")
TIMEOUTS = st.sampled_from([None, None, None, 1500, 2500, 0])  # seconds; the test itself takes far less
OTHERS = ("wait", "sweep", "correct")  # now and then, among the batches
AMOUNTS = st.sampled_from([*range(1, 9), *range(1, 9), 0, -1, None, 10**38, 10**30])
QUIET = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False, derandomize=True
)


class Ledger(RuleBasedStateMachine):
    """Three accounts of one asset, one of another, and the world outside."""

    seen: Counter[str]

    @initialize()
    def open_books(self):
        time_passes(10**6)  # the holds of the run before
        db.value("SELECT ledger_expire(10000)")
        self.oracle = Oracle()
        self.items = []
        self.outside = outside()
        posted, held = balance(self.outside)
        self.oracle.state.accounts = {account(20): Account("AIT", posted=20) for _ in range(3)}
        self.oracle.state.accounts |= {
            account(20, asset="TST"): Account("TST", posted=20),
            self.outside: Account("AIT", overdraft=True, posted=posted - 60, held=held),
        }

    @rule(data=st.data(), size=st.integers(1, 6), other=st.sampled_from([*OTHERS, *[None] * 9]))
    def step(self, data, size, other):
        if other:
            getattr(self, other)(data)
            return
        batch = []
        for _ in range(size):
            batch.append(self.draw_item(data, batch or self.items[-12:]))
        expected = self.oracle.apply(batch)
        assert ledger.apply(batch) == expected
        type(self).seen.update(expected)
        self.items += batch

    def wait(self, data):
        seconds = data.draw(st.sampled_from([1000, 2000]), "seconds")
        time_passes(seconds)
        self.oracle.now += seconds

    def sweep(self, data):
        assert db.value("SELECT ledger_expire(1000)") == self.oracle.expire()

    def correct(self, data):
        """Any transfer or resolution so far, reversed: the amount goes back once, if it is still there."""
        done = [item for item in self.items if self.oracle.applied(item)]
        if done:
            item = data.draw(st.sampled_from(done), "reversed")
            expected = self.oracle.reverse(item)
            if expected in ("ok", "exists"):
                reverse(item.id, reason="drawn")
                return
            with pytest.raises(Conflict) as error:
                reverse(item.id, reason="drawn")
            assert error.value.code == f"payment.{expected}"

    def draw_item(self, data, earlier):
        if earlier and data.draw(st.integers(0, 4), "repeat") == 0:
            return self.draw_repeat(data, earlier)
        action = data.draw(st.sampled_from(["transfer", "hold", "hold", "post", "post", "void"]), "action")
        accounts = st.sampled_from([*self.oracle.state.accounts] * 3 + [2**62])
        hold = st.sampled_from([*list(self.oracle.state.holds)[-4:], uuid7()])
        return Item(
            id=uuid7(),
            action=action,
            kind="machine",
            debit=data.draw(accounts, "debit") if action in ("transfer", "hold") else None,
            credit=data.draw(accounts, "credit") if action in ("transfer", "post") else None,
            amount=data.draw(AMOUNTS, "amount") if action != "void" else None,
            hold=data.draw(hold, "hold") if action in ("post", "void") else None,
            link=data.draw(st.integers(0, 2), "link"),
            timeout=data.draw(TIMEOUTS, "timeout") if action == "hold" else None,
        )

    def draw_repeat(self, data, earlier):
        """An earlier item as it was, or with one field changed."""
        item = data.draw(st.sampled_from(earlier), "repeated")
        changes = [{}, {"kind": "other"}, {"reference": uuid7()}]
        changes += [{"amount": 13}] if item.action != "void" else []
        changes += [{"timeout": 7777}] if item.action == "hold" else []
        changes += [{"credit": 2**61}] if item.action in ("transfer", "post") else []
        link = data.draw(st.integers(0, 2), "link")
        return replace(item, **data.draw(st.sampled_from(changes), "change"), link=link)

    @invariant()
    def balances_agree(self):
        if hasattr(self, "oracle"):
            expected = {id: (a.posted, a.held) for id, a in self.oracle.state.accounts.items()}
            assert {id: balance(id) for id in expected} == expected

    def teardown(self):
        assert audit() == []
        assert sum(a.posted for a in self.oracle.state.accounts.values() if a.asset == "TST") == 20


CODES = {
    *("ok", "exists", "insufficient_funds", "amount_not_positive", "amount_too_large", "account_unknown"),
    *("asset_mismatch", "same_account", "hold_unknown", "hold_already_posted", "hold_already_voided"),
    *("exceeds_hold", "linked_failed", "hold_already_expired", "timeout_not_positive"),
    *(f"exists_with_different_{field}" for field in ("credit", "amount", "kind", "reference", "timeout")),
}


def check(machine, codes, **profile):
    machine.seen = Counter()
    Asset.objects.using("owner").create(code="TST", name="Test", decimals=2)
    run_state_machine_as_test(machine, settings=settings(QUIET, **profile))
    assert set(machine.seen) >= codes
    return machine.seen.total()


def test_the_ledger_agrees_with_the_oracle():
    common = {code for code in CODES if not code.startswith("exists_with")}
    check(Ledger, common, max_examples=40, stateful_step_count=20, phases=[Phase.generate])  # a failure ends it at once


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(20))
def test_the_ledger_agrees_with_the_oracle_for_ten_thousand_operations(number):
    seeded = seed(number)(type(f"LedgerOfSeed{number}", (Ledger,), {}))
    assert check(seeded, CODES, max_examples=120, stateful_step_count=50, derandomize=False) >= 10_000
