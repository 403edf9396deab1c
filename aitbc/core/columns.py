"""Columns of the console's lists, and fields of its pages: which value of a row, and how it is written.

A column is a method of the page that shows it. Its name must not be that of a field of the model:
Django would show the bare field.
"""

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from unfold.decorators import display

from aitbc.core import show

Column = Callable[[Any, Any], Any]


def column(
    label: str,
    of: str | Callable[[Any], Any],
    shown: Callable[[Any], Any] = lambda value: value,
    *,
    ordering: str | None = None,
    boolean: bool | None = None,
) -> Column:
    """`of` is a path of attributes such as `device.model`, or computes the value from the row."""
    read: Callable[[Any], Any] = attrgetter(of) if isinstance(of, str) else of

    @display(description=label, ordering=ordering, boolean=boolean)
    def method(page: Any, row: Any) -> Any:
        return shown(read(row))

    return method  # type: ignore[no-any-return]  # unfold has no types


def state(tones: Mapping[str, str], of: str = "state", label: str = "State") -> Column:
    return column(label, of, partial(show.state, tones=tones), ordering=of)


def link(label: str, page: str, of: str) -> Column:
    """To the row of `page` whose id the column `of` holds, without reading that row."""
    return column(label, of, partial(show.link, page))
