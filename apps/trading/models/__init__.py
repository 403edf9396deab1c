from apps.trading.models.deposits import Deposit, DepositAddress
from apps.trading.models.journal import Balance, Checkpoint, JournalBlock
from apps.trading.models.ledger import Account, Asset, Entry, HoldTimer, Transfer
from apps.trading.models.payments import Payment
from apps.trading.models.payouts import PayoutBatch, PayoutLeaf, PayoutTarget, ReserveCheck
from apps.trading.models.settlement import ReceiptLeaf, SettlementBatch
from apps.trading.models.streams import Stream
from apps.trading.models.withdrawals import Withdrawal

__all__ = [
    "Account", "Asset", "Balance", "Checkpoint", "Deposit", "DepositAddress", "Entry", "HoldTimer", "JournalBlock",
    "Payment", "PayoutBatch", "PayoutLeaf", "PayoutTarget", "ReceiptLeaf", "ReserveCheck", "SettlementBatch", "Stream",
    "Transfer", "Withdrawal",
]  # fmt: skip
