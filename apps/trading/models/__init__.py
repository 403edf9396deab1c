from apps.trading.models.ledger import Account, Asset, Entry, Transfer
from apps.trading.models.payments import Payment
from apps.trading.models.settlement import ReceiptLeaf, SettlementBatch

__all__ = ["Account", "Asset", "Entry", "Payment", "ReceiptLeaf", "SettlementBatch", "Transfer"]
