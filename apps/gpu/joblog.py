"""The log of a job, what its runtime wrote while it ran: bounds that miner and platform share."""

import re
from typing import Final

LINE_CHARS: Final = 2000
REPORT_LINES: Final = 200
ATTEMPT_BYTES: Final = 1024 * 1024  # of one attempt at the job, kept by the platform
_MARK: Final = " [line cut]"
# Not in a text stream, not in PostgreSQL, and no second line inside a line: all control characters but
# the tab, the separators that `str.splitlines` knows, and halves of surrogate pairs.
_UNSAFE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def clean(line: str) -> str:
    """One line, safe to store and show; what is cut off is said. Cleaning twice changes nothing."""
    if len(line) > LINE_CHARS:
        line = line[: LINE_CHARS - len(_MARK)] + _MARK
    return _UNSAFE.sub("\ufffd", line)
