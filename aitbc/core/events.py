"""Receivers of domain events. A receiver runs at least once per event, in the relay's transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from aitbc.core import ports


@dataclass(frozen=True, slots=True)
class Event:
    """`version` grows with each event of one aggregate; a receiver may drop what is older."""

    id: UUID
    name: str
    aggregate: str
    version: int
    payload: dict[str, Any]


Receiver = Callable[[Event], None]


def receiver(name: str) -> Callable[[Receiver], Receiver]:
    def register(function: Receiver) -> Receiver:
        ports.subscribe(f"event:{name}", function)
        return function

    return register


def receivers(name: str) -> list[Receiver]:
    return ports.subscribers(f"event:{name}")
