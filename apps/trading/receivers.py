"""What trading does when the chain worker tells of final events and resolved intents.

All run in the worker's transaction, once per event: see `aitbc.chain.indexer.dispatch`.
"""

from aitbc.core import ports
from apps.trading.services import deposits, payouts, settlement, withdrawals


def register() -> None:
    ports.subscribe("chain.event:AIT.Transfer", deposits.receive_transfer)
    ports.subscribe("chain.event:Settlement.Deposited", deposits.receive_deposited)
    ports.subscribe("chain.event:Settlement.Claimed", payouts.receive_claim)
    ports.subscribe("chain.event:Settlement.Withdrawn", withdrawals.receive_withdrawn)
    ports.subscribe("chain.intent:settlement.anchor", settlement.finish_batch)
    ports.subscribe("chain.intent:settlement.payout", payouts.finish_payouts)
    ports.subscribe("chain.intent:settlement.withdrawal", withdrawals.finish_withdrawal)
