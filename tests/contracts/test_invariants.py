"""Random histories of the settlement contract against a model in Python: money is neither made nor lost.

The model predicts every answer: who may call, what is paused, which ids and leaves are used, what an
approval is worth, and how much may still leave; the contract must agree each time.
"""

import os
import random

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aitbc.chain import merkle
from aitbc.chain.approvals import PAYOUT, WITHDRAWAL
from aitbc.chain.testing import AIT, Actor
from aitbc.core.errors import Conflict

from .conftest import CAP, THRESHOLD, World
from .test_settlement import hexes, leaf, many

DAY = 86_400
SLACK = 60  # seconds between the model's look at the clock and the block that answers
amounts = st.one_of(st.integers(1, 3 * THRESHOLD), st.sampled_from([THRESHOLD, THRESHOLD + 1, CAP]))
signers = st.sampled_from(["approver", "approver", "approver", "operator", "owner", "nobody", "other payload"])
shares_of_batch = st.lists(st.integers(1, THRESHOLD), min_size=1, max_size=5)


def identifier(number: int) -> str:
    return "0x" + number.to_bytes(32, "big").hex()


class Settlement(RuleBasedStateMachine):
    """The model: what the contract must hold, has promised and has let out, and who rules it."""

    world: World
    spare: tuple[Actor, Actor]

    @initialize()
    def begin(self) -> None:
        self.snapshot = self.world.client.call("evm_snapshot")
        self.held = self.promised = self.left = self.outside = self.deposits = 0
        self.used: set[str] = set()
        self.anchors: dict[str, str] = {}
        self.batches: dict[str, tuple[merkle.Tree, list[tuple[str, int]], set[int]]] = {}
        self.next_id = 1
        self.paused = False
        self.cap, self.threshold, self.most = CAP, THRESHOLD, CAP
        self.level, self.since = CAP, self.now()
        self.started = self.since
        self.owner, self.pending = self.world.owner, None
        self.operator, self.approver = self.world.operator, self.world.approver

    def teardown(self) -> None:
        if hasattr(self, "snapshot"):
            self.world.client.call("evm_revert", self.snapshot)

    # -- the model ---------------------------------------------------------------------------------
    def now(self) -> int:
        [header] = self.world.client.headers([self.world.client.head()])
        return header.timestamp

    def fresh(self) -> str:
        self.next_id += 1
        return identifier(self.next_id)

    def available(self, moment: int) -> int:
        return min(self.cap, self.level + (moment - self.since) * self.cap // DAY)

    def attempt(self, allowed: bool | None, actor: Actor, function: str, *args) -> bool:
        """The contract agrees with the model on whether this may happen; None: time decides."""
        reason = None
        try:
            self.world.settlement.send(actor, function, *args)
        except Conflict as refusal:
            reason = refusal.code
        done = reason is None
        assert reason in (None, "chain.reverted")
        assert allowed is None or done == allowed, f"{function}{args} by {actor.address}"
        return done

    def outflow(self, amount: int, approved: bool) -> bool | None:
        if self.paused or amount > self.held - self.promised:
            return False
        if amount > self.threshold and not approved:
            return False
        moment = self.now()
        if amount <= self.available(moment):
            return True
        return None if amount <= self.available(moment + SLACK) else False

    def spend(self, amount: int) -> None:
        moment = self.now()
        self.level, self.since = self.available(moment) - amount, moment
        self.left += amount

    def approval(self, who: str, struct, values: dict) -> str:
        if who == "nobody":
            return "0x"
        if who == "other payload":
            values = values | {name: values[name] + 1 for name in values if name in ("amount", "total")}
        signer = {"operator": self.operator, "owner": self.owner}.get(who, self.approver)
        return self.world.approval(struct, values, signer)

    # -- in ----------------------------------------------------------------------------------------
    @rule(amount=st.one_of(st.just(0), amounts))
    def deposit(self, amount: int) -> None:
        self.world.fund(self.world.alice, amount)
        allowed = amount > 0 and not self.paused
        if self.attempt(allowed, self.world.alice, "depositFor", identifier(7), amount):
            self.held += amount
            self.deposits += 1

    @rule(amount=amounts, user=st.integers(1, 3))
    def receive_and_sweep(self, amount: int, user: int) -> None:
        address = self.world.settlement.read("depositAddress", identifier(user))
        self.world.token.send(self.world.owner, "mint", address, amount)
        assert self.attempt(True, self.world.bob, "sweep", identifier(user))
        self.held += amount

    # -- out ---------------------------------------------------------------------------------------
    @rule(amount=amounts, reuse=st.booleans(), signer=signers, caller=st.sampled_from(["operator", "bob"]))
    def withdraw(self, amount: int, reuse: bool, signer: str, caller: str) -> None:
        intent = min(self.used) if reuse and self.used else self.fresh()
        values = {"intentId": intent, "to": self.world.bob.address, "amount": amount}
        approval = self.approval(signer, WITHDRAWAL, values)
        allowed = self.outflow(amount, signer == "approver")
        if intent in self.used or caller != "operator":
            allowed = False
        actor = self.operator if caller == "operator" else self.world.bob
        if self.attempt(allowed, actor, "withdraw", *values.values(), approval):
            self.spend(amount)
            self.used.add(intent)
            self.held -= amount
            self.outside += amount

    @rule(shares=st.lists(st.integers(1, THRESHOLD), min_size=1, max_size=5), reuse=st.booleans(), signer=signers)
    def open_payout(self, shares: list[int], reuse: bool, signer: str) -> None:
        batch = min(self.batches) if reuse and self.batches else self.fresh()
        accounts = [(self.world.guardian.address, amount) for amount in shares]
        tree = merkle.Tree([leaf(batch, i, *account) for i, account in enumerate(accounts)])
        root, total = "0x" + tree.root.hex(), sum(shares)
        values = {"batchId": batch, "root": root, "total": total, "count": len(shares)}
        approval = self.approval(signer, PAYOUT, values)
        allowed = False if batch in self.batches else self.outflow(total, signer == "approver")
        if self.attempt(allowed, self.operator, "openPayout", *values.values(), approval):
            self.spend(total)
            self.batches[batch] = (tree, accounts, set())
            self.promised += total

    def pay(self, amount: int) -> None:
        self.promised -= amount
        self.held -= amount
        self.outside += amount

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), excess=st.sampled_from([0, 0, 0, 1]))
    def claim(self, data, excess: int) -> None:
        batch = data.draw(st.sampled_from(sorted(self.batches)))
        tree, accounts, claimed = self.batches[batch]
        index = data.draw(st.integers(0, len(accounts) - 1))
        account, amount = accounts[index]
        args = [batch, index, account, amount + excess, hexes(tree.proof(index))]
        allowed = not self.paused and index not in claimed and not excess
        if self.attempt(allowed, self.world.bob, "claim", *args):
            claimed.add(index)
            self.pay(amount)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), excess=st.sampled_from([0, 0, 0, 1]))
    def claim_many(self, data, excess: int) -> None:
        batch = data.draw(st.sampled_from(sorted(self.batches)))
        tree, accounts, claimed = self.batches[batch]
        indexes = sorted(data.draw(st.sets(st.integers(0, len(accounts) - 1), min_size=1)))
        _, claims, proof, flags = many(tree, accounts, indexes)
        claims[-1][2] += excess
        allowed = not self.paused and not excess
        if self.attempt(allowed, self.world.bob, "claimMany", batch, claims, proof, flags):
            self.pay(sum(accounts[index][1] for index in set(indexes) - claimed))
            claimed.update(indexes)

    @rule(reuse=st.booleans(), root=st.integers(0, 3))
    def anchor(self, reuse: bool, root: int) -> None:
        batch = min(self.anchors) if reuse and self.anchors else self.fresh()
        args = [batch, identifier(root), 1, identifier(0)]
        if self.attempt(root > 0 and batch not in self.anchors, self.operator, "anchor", *args):
            self.anchors[batch] = identifier(root)

    # -- rule --------------------------------------------------------------------------------------
    @rule(seconds=st.integers(1, DAY))
    def wait(self, seconds: int) -> None:
        self.world.client.call("evm_increaseTime", seconds)
        self.world.client.call("evm_mine")

    @rule(by=st.sampled_from(["guardian", "owner", "operator"]))
    def pause(self, by: str) -> None:
        actor = {"guardian": self.world.guardian, "owner": self.owner, "operator": self.operator}[by]
        if self.attempt(by != "operator" and not self.paused, actor, "pause"):
            self.paused = True

    @rule(by=st.sampled_from(["owner", "owner", "owner", "guardian"]))
    def unpause(self, by: str) -> None:
        actor = self.owner if by == "owner" else self.world.guardian
        if self.attempt(by == "owner" and self.paused, actor, "unpause"):
            self.paused = False

    @rule(place=st.integers(0, 2))
    def offer_ownership(self, place: int) -> None:
        taker = (self.world.owner, *self.spare)[place]
        assert self.attempt(True, self.owner, "transferOwnership", taker.address)
        self.pending = taker

    @rule(place=st.integers(0, 2))
    def accept_ownership(self, place: int) -> None:
        taker = (self.world.owner, *self.spare)[place]
        if self.attempt(taker is self.pending, taker, "acceptOwnership"):
            self.owner, self.pending = taker, None

    @rule(by=st.sampled_from(["owner", "operator"]), swap=st.booleans(), same=st.booleans())
    def set_roles(self, by: str, swap: bool, same: bool) -> None:
        operator, approver = (self.approver, self.operator) if swap else (self.world.operator, self.world.approver)
        approver = operator if same else approver
        actor = self.owner if by == "owner" else self.operator
        roles = [operator.address, approver.address, self.world.guardian.address]
        if self.attempt(by == "owner" and not same, actor, "setRoles", *roles):
            self.operator, self.approver = operator, approver

    @rule(factor=st.integers(0, 3), threshold=st.sampled_from([0, THRESHOLD, 2 * THRESHOLD]))
    def set_limits(self, factor: int, threshold: int) -> None:
        assert self.attempt(True, self.owner, "setLimits", factor * CAP // 2, threshold)
        moment = self.now()
        self.level, self.since = min(self.available(moment), factor * CAP // 2), moment
        self.cap, self.threshold = factor * CAP // 2, threshold
        self.most = max(self.most, self.cap)

    # -- invariants --------------------------------------------------------------------------------
    @invariant()
    def money_is_where_the_model_says(self) -> None:
        if not hasattr(self, "snapshot"):
            return
        world = self.world
        assert world.balance(world.settlement) == self.held
        assert world.settlement.read("promised") == self.promised <= self.held
        assert world.balance(world.bob) + world.balance(world.guardian) == self.outside
        assert world.settlement.read("depositCount") == self.deposits

    @invariant()
    def what_may_leave_is_what_the_model_says(self) -> None:
        if hasattr(self, "snapshot"):
            assert self.world.settlement.read("availableOutflow") == self.available(self.now()) <= self.cap
            elapsed = self.now() - self.started
            assert self.left <= self.most + self.most * elapsed // DAY

    @invariant()
    def ids_and_leaves_are_used_as_the_model_says(self) -> None:
        if not hasattr(self, "snapshot"):
            return
        read = self.world.settlement.read
        for batch, (_, accounts, claimed) in self.batches.items():
            open_amount = sum(amount for i, (_, amount) in enumerate(accounts) if i not in claimed)
            assert read("payouts", batch)[1] == open_amount
            assert {i for i in range(len(accounts)) if read("claimed", batch, i)} == claimed
        assert all(read("used", intent) for intent in self.used)
        for batch, root in self.anchors.items():
            assert read("anchored", batch).hex() == root[2:]

    @invariant()
    def rulers_are_those_of_the_model(self) -> None:
        if hasattr(self, "snapshot"):
            read = self.world.settlement.read
            roles = [read("owner"), read("operator"), read("approver")]
            assert roles == [a.address.lower() for a in (self.owner, self.operator, self.approver)]
            assert read("paused") is self.paused


def _run(deployed: World, *, examples: int, steps: int) -> None:
    Settlement.world = deployed
    Settlement.spare = (Actor(deployed.client), Actor(deployed.client))
    assert deployed.balance(deployed.settlement) == 0
    assert AIT * 1000 == CAP
    seed = int(os.environ.get("AITBC_SEED", random.SystemRandom().randrange(2**32)))
    print(f"AITBC_SEED={seed}")  # noqa: T201 - the way to repeat this run
    hypothesis.stateful.run_state_machine_as_test(
        hypothesis.seed(seed)(Settlement),
        settings=hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


@pytest.mark.timeout(300)
def test_no_history_makes_or_loses_money(deployed):
    _run(deployed, examples=12, steps=30)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_long_history_makes_or_loses_money(deployed):
    _run(deployed, examples=200, steps=60)


def test_the_machine_notices_a_contract_that_pays_a_leaf_twice(deployed):
    """The oracle is not blind: a model that forgets a claim is contradicted."""
    snapshot = deployed.client.call("evm_snapshot")
    try:
        Settlement.world, Settlement.spare = deployed, (deployed.alice, deployed.bob)
        machine = Settlement()
        machine.begin()
        machine.deposit(10)
        machine.open_payout([4], False, "nobody")
        batch, (tree, accounts, claimed) = next(iter(machine.batches.items()))
        machine.attempt(True, deployed.bob, "claimMany", *_call(batch, tree, accounts))
        with pytest.raises(AssertionError):
            machine.money_is_where_the_model_says()
        with pytest.raises(AssertionError):
            machine.ids_and_leaves_are_used_as_the_model_says()
        assert claimed == set()
    finally:
        deployed.client.call("evm_revert", snapshot)


def _call(batch: str, tree: merkle.Tree, accounts: list[tuple[str, int]]) -> list:
    _, claims, proof, flags = many(tree, accounts, [0])
    return [batch, claims, proof, flags]
