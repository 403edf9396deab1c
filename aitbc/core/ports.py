"""How a lower layer reaches an upper one without importing it.

`provide`/`get`: one function answers a synchronous need. `subscribe`/`subscribers`: several
functions want to hear something inside the caller's transaction. Upper apps register at ready().
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

_providers: dict[str, Callable[..., Any]] = {}
_subscribers: dict[str, list[Callable[..., Any]]] = defaultdict(list)


def provide(name: str, function: Callable[..., Any]) -> None:
    if _providers.setdefault(name, function) is not function:
        raise RuntimeError(f"the port {name} already has a provider")


def get(name: str) -> Callable[..., Any]:
    if name not in _providers:
        raise RuntimeError(f"no installed app provides the port {name}")
    return _providers[name]


def find(name: str) -> Callable[..., Any] | None:
    return _providers.get(name)


def subscribe(name: str, function: Callable[..., Any]) -> None:
    if function not in _subscribers[name]:
        _subscribers[name].append(function)


def subscribers(name: str) -> list[Callable[..., Any]]:
    return list(_subscribers.get(name, ()))
