"""The ledger's rules a second time, in plain Python, written from the comment of `ledger_apply`."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from uuid import UUID

from apps.trading.services.ledger import Item

FIELDS = ("action", "hold", "debit", "credit", "amount", "kind", "reference", "timeout")


@dataclass
class Account:
    asset: str
    overdraft: bool = False
    posted: int = 0
    held: int = 0


@dataclass
class Hold:
    debit: int
    amount: int
    left: int
    state: str = "pending"
    call: int | None = None  # the call that resolves it by posting
    due: int | None = None


@dataclass
class State:
    accounts: dict[int, Account] = field(default_factory=dict)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    facts: dict[UUID, tuple[object, ...]] = field(default_factory=dict)
    reversed: set[UUID] = field(default_factory=set)


class Oracle:
    def __init__(self) -> None:
        self.state = State()
        self.holds_before: set[UUID] = set()
        self.call = 0
        self.now = 0  # seconds

    def apply(self, items: Sequence[Item]) -> list[str]:
        self.call += 1
        self.holds_before = set(self.state.holds)
        codes: list[str] = []
        for group in _groups(items):
            codes += self._group(group)
        return codes

    def expire(self) -> int:
        """Release what is due; how many."""
        due = [hold for hold in self.state.holds.values() if self._state(hold) == "expired" != hold.state]
        for hold in due:
            hold.state = "expired"
            self.state.accounts[hold.debit].held -= hold.amount
        return len(due)

    def applied(self, item: Item) -> bool:
        """Whether it moved money."""
        known = self.state.facts.get(item.id)
        return item.action in ("transfer", "post") and known == self._facts(item)

    def reverse(self, item: Item) -> str:
        if item.id in self.state.reversed:
            return "exists"
        debit = self.state.holds[item.hold].debit if item.hold else item.debit
        back = replace(item, id=None, action="transfer", debit=item.credit, credit=debit, hold=None)
        code = self._refusal(back)
        if code is None:
            self._move(back)
            self.state.reversed.add(item.id)
        return code or "ok"

    def _state(self, hold: Hold) -> str:
        over = hold.state == "pending" and hold.due is not None and hold.due <= self.now
        return "expired" if over else hold.state

    def _group(self, group: list[Item]) -> list[str]:
        before = deepcopy(self.state)
        codes = [self._one(item) for item in group]
        if len(group) == 1 or all(code in ("ok", "exists") for code in codes):
            return codes
        self.state = before
        return [
            "linked_failed" if code == "ok" or (code == "exists" and item.id not in before.facts) else code
            for item, code in zip(group, codes, strict=True)
        ]

    def _one(self, item: Item) -> str:
        if (known := self.state.facts.get(item.id)) is not None:
            return _difference(known, self._facts(item))
        code = self._refusal(item)
        if code is None:
            self._move(item)
            self.state.facts[item.id] = self._facts(item)
        return code or "ok"

    def _hold(self, item: Item) -> Hold | None:
        return self.state.holds.get(item.hold) if item.hold in self.holds_before else None

    def _facts(self, item: Item) -> tuple[object, ...]:
        hold = self._hold(item)
        debit = hold.debit if hold else item.debit
        amount = hold.amount if hold and item.action == "void" else item.amount
        return (item.action, item.hold, debit, item.credit, amount, item.kind, item.reference, item.timeout)

    def _refusal(self, item: Item) -> str | None:
        hold = self._hold(item)
        if item.action in ("post", "void") and hold is None:
            return "hold_unknown"
        if item.action == "void":
            state = self._state(hold)
            return None if state == "pending" else f"hold_already_{state}"
        if item.amount is None or item.amount <= 0 or item.amount != int(item.amount):
            return "amount_not_positive"
        if item.amount >= 10**38:
            return "amount_too_large"
        if item.timeout is not None and item.timeout <= 0:
            return "timeout_not_positive"
        return self._refusal_of_sides(item, hold)

    def _refusal_of_sides(self, item: Item, hold: Hold | None) -> str | None:
        debit_id = hold.debit if hold else item.debit
        debit, credit = self.state.accounts.get(debit_id), self.state.accounts.get(item.credit)
        if debit is None or (credit is None and item.action != "hold"):
            return "account_unknown"
        if debit_id == item.credit:
            return "same_account"
        if credit is not None and debit.asset != credit.asset:
            return "asset_mismatch"
        if hold is not None:
            return self._refusal_of_post(item, hold)
        short = not debit.overdraft and debit.posted - debit.held < item.amount
        return "insufficient_funds" if short else None

    def _refusal_of_post(self, item: Item, hold: Hold) -> str | None:
        state = self._state(hold)
        if state in ("voided", "expired") or (state == "posted" and hold.call != self.call):
            return f"hold_already_{state}"
        return "exceeds_hold" if item.amount > hold.left else None

    def _move(self, item: Item) -> None:
        hold = self._hold(item)
        debit = self.state.accounts[hold.debit if hold else item.debit]
        if item.action == "hold":
            debit.held += item.amount
            self.state.holds[item.id] = Hold(item.debit, item.amount, item.amount)
            self.state.holds[item.id].due = None if item.timeout is None else self.now + item.timeout
            return
        if hold is not None and hold.state == "pending":
            hold.state, hold.call = {"post": "posted", "void": "voided"}[item.action], self.call
            debit.held -= hold.amount
        if item.action != "void":
            debit.posted -= item.amount
            self.state.accounts[item.credit].posted += item.amount
        if item.action == "post":
            hold.left -= item.amount


def _groups(items: Sequence[Item]) -> list[list[Item]]:
    groups: list[list[Item]] = []
    for item in items:
        if groups and item.link and groups[-1][-1].link == item.link:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _difference(known: tuple[object, ...], given: tuple[object, ...]) -> str:
    differs = [name for name, old, new in zip(FIELDS, known, given, strict=True) if old != new]
    return f"exists_with_different_{differs[0]}" if differs else "exists"
