"""Test money of a development chain: real mints, real deposits, no invented balance."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import transaction

from aitbc.chain import intents
from aitbc.chain.models import Intent
from aitbc.core.ids import uuid7
from apps.trading.models import Deposit
from apps.trading.services import ledger
from apps.trading.services.deposits import deposit_address

CREDITED: Final = "credited"


@dataclass(frozen=True, slots=True)
class Minted:
    intent: UUID
    address: str
    state: str


def mint_deposit(*, user: UUID | None, amount: int, key: str = "") -> Minted:
    """Ask the chain worker to mint `amount` (smallest units) to the deposit address; None: the treasury's.
    Under the same `key` it is minted once."""
    address = deposit_address(user=user)
    with transaction.atomic():
        args, business_key = [address, str(amount)], f"mint:{key or uuid7()}"
        intent = intents.request_intent("token.mint", business_key, "mint", args, contract="AIT", role="owner")
    return Minted(intent.pk, address, str(intent.state))


def state_of(minted: Minted) -> str:
    """The intent's state, or "credited" once the ledger has it."""
    intent = Intent.objects.get(pk=minted.intent)
    if intent.tx_hash and Deposit.objects.filter(tx_hash=intent.tx_hash, address=minted.address).exists():
        return CREDITED
    return str(intent.state)


def book_from_treasury(*, user: UUID, amount: int) -> None:
    """Treasury -> user; Conflict when the treasury was not funded by a deposit of that size."""
    sides = ledger.account_id(owner=None, kind="treasury"), ledger.account_id(owner=user, kind="available")
    ledger.apply_all([ledger.Item(uuid7(), "transfer", "treasury.grant", *sides, amount)])
