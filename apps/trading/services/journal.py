"""The sealer of the ledger's hash chain; see `sql/journal.sql` for what a block holds."""

from typing import Final

from aitbc.core import db
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
