"""The sealer of the ledger's hash chain; see `sql/journal.sql` for what a block holds."""

from typing import Final

from aitbc.core import db
from aitbc.core.errors import NotFound
from apps.trading.models import JournalBlock

NO_HEAD: Final = "0x" + "00" * 32


def seal(most: int = 20_000) -> int | None:
    """Seal what is committed and complete, about `most` transfers at a time; the block's number, or None
    when nothing was new."""
    number: int | None = db.value("SELECT journal_seal(%s::int)", (most,))
    return number


def head() -> str:
    """The newest head as 0x hex, all zero before the first block: what each settlement batch anchors."""
    newest = JournalBlock.objects.first()
    return str(newest.head) if newest else NO_HEAD


def checkpoint() -> int | None:
    """Record all balances as of the newest sealed block: its number, or None when there is no new one."""
    number: int | None = db.value("SELECT ledger_checkpoint()")
    return number


def balance_at(*, account: int, block: int) -> int:
    """Posted balance, in the smallest unit, as sealed in that block: nothing later changes the answer."""
    if not JournalBlock.objects.filter(number=block).exists():
        raise NotFound("ledger.block_unknown", f"the journal has no block {block}")
    return int(db.value("SELECT ledger_balance_at(%s::bigint, %s::bigint)", (account, block)))
