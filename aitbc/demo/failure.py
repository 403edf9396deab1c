"""How a step of the demonstration says that it did not hold."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


class Failed(Exception):
    """What did not hold, and which log (a path below `var/`) tells more."""

    def __init__(self, reason: str, *, log: str = "") -> None:
        super().__init__(reason + (f"; read {log}" if log else ""))


def require(condition: object, reason: str, *, log: str = "") -> None:
    if not condition:
        raise Failed(reason, log=log)


def wait_for(
    look: Callable[[], Found | None], *, seconds: float, what: str, log: str = "", pause: float = 0.25
) -> Found:
    """What `look` finds, asked again until it finds something; Failed after `seconds` without."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        require(time.monotonic() <= deadline, f"{what}: not within {seconds:.0f} s", log=log)
        time.sleep(pause)
    return found
