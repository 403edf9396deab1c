"""Random histories of the settlement contract against a model in Python: money is neither made nor lost."""

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aitbc.chain import merkle
from aitbc.chain.testing import AIT
from aitbc.core.errors import Conflict

from .conftest import CAP, THRESHOLD, World
from .test_settlement import hexes, tree_of

DAY = 86_400
amounts = st.integers(1, 3 * THRESHOLD)


def identifier(number: int) -> str:
    return "0x" + number.to_bytes(32, "big").hex()


class Settlement(RuleBasedStateMachine):
    """The model: what the contract must hold, has promised and has let out."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.snapshot = self.world.client.call("evm_snapshot")
        self.held = self.promised = self.left = self.outside = 0
        self.used: set[str] = set()
        self.batches: dict[str, tuple[merkle.Tree, list[tuple[str, int]], set[int]]] = {}
        self.elapsed = 0
        self.next_id = 1

    def teardown(self) -> None:
        if hasattr(self, "snapshot"):
            self.world.client.call("evm_revert", self.snapshot)

    def fresh(self) -> str:
        self.next_id += 1
        return identifier(self.next_id)

    def _try(self, allowed: bool, call) -> bool:
        """The contract agrees with the model on whether this may happen."""
        try:
            call()
        except Conflict as refusal:
            reason = refusal.code
        else:
            reason = None
        assert reason == (None if allowed else "chain.reverted")
        return allowed

    def _outflow_fits(self, amount: int) -> bool:
        return amount <= self.held - self.promised and amount <= self.world.settlement.read(
            "availableOutflow"
        )

    @rule(amount=amounts)
    def deposit(self, amount: int) -> None:
        self.world.fund(self.world.alice, amount)
        self.world.settlement.send(self.world.alice, "depositFor", identifier(7), amount)
        self.held += amount

    @rule(amount=amounts, user=st.integers(1, 3))
    def receive_and_sweep(self, amount: int, user: int) -> None:
        address = self.world.settlement.read("depositAddress", identifier(user))
        self.world.token.send(self.world.owner, "mint", address, amount)
        self.world.settlement.send(self.world.bob, "sweep", identifier(user))
        self.held += amount

    @rule(amount=amounts, reuse=st.booleans())
    def withdraw(self, amount: int, reuse: bool) -> None:
        intent = next(iter(self.used)) if reuse and self.used else self.fresh()
        allowed = intent not in self.used and self._outflow_fits(amount)
        if self._try(allowed, lambda: self.world.withdraw(intent, self.world.bob.address, amount)):
            self.used.add(intent)
            self.held -= amount
            self.outside += amount
            self.left += amount

    @rule(shares=st.lists(st.integers(1, THRESHOLD), min_size=1, max_size=5))
    def open_payout(self, shares: list[int]) -> None:
        batch = self.fresh()
        accounts = [(self.world.guardian.address, amount) for amount in shares]
        tree = tree_of(batch, accounts)
        root, total = "0x" + tree.root.hex(), sum(shares)
        if self._try(
            self._outflow_fits(total), lambda: self.world.open_payout(batch, root, total, len(shares))
        ):
            self.batches[batch] = (tree, accounts, set())
            self.promised += total
            self.left += total

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def claim(self, data) -> None:
        batch = data.draw(st.sampled_from(sorted(self.batches)))
        tree, accounts, claimed = self.batches[batch]
        index = data.draw(st.integers(0, len(accounts) - 1))
        account, amount = accounts[index]
        args = [batch, index, account, amount, hexes(tree.proof(index))]
        if self._try(
            index not in claimed, lambda: self.world.settlement.send(self.world.bob, "claim", *args)
        ):
            claimed.add(index)
            self.promised -= amount
            self.held -= amount
            self.outside += amount

    @rule(seconds=st.integers(1, DAY))
    def wait(self, seconds: int) -> None:
        self.world.client.call("evm_increaseTime", seconds)
        self.world.client.call("evm_mine")
        self.elapsed += seconds

    @invariant()
    def money_is_where_the_model_says(self) -> None:
        if not hasattr(self, "snapshot"):
            return
        world = self.world
        assert world.balance(world.settlement) == self.held
        assert world.settlement.read("promised") == self.promised <= self.held
        assert world.balance(world.bob) + world.balance(world.guardian) == self.outside

    @invariant()
    def the_daily_cap_holds(self) -> None:
        if hasattr(self, "snapshot"):
            slack = CAP * 120 // DAY  # blocks that were mined meanwhile add seconds of their own
            assert self.left <= CAP + CAP * self.elapsed // DAY + slack


@pytest.mark.timeout(300)
def test_no_history_makes_or_loses_money(deployed):
    Settlement.world = deployed
    assert deployed.balance(deployed.settlement) == 0
    assert AIT * 1000 == CAP
    hypothesis.stateful.run_state_machine_as_test(
        Settlement,
        settings=hypothesis.settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
