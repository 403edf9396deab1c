"""How the console writes what machines count: amounts, durations, hashes, documents, links."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from aitbc.core import money

MAX_DOCUMENT = 20_000
MAX_STRING = 200
INDENT = "  "
SHOWN = 6
NOTHING = "-"


def amount(units: int | None, asset: str, decimals: int) -> SafeString | str:
    """Smallest units as a decimal with its asset; the points of a column stand above each other."""
    if units is None:
        return NOTHING
    return decimal(money.show(units, decimals), asset)


def decimal(amount: str, asset: str) -> SafeString:
    """Lists show `SHOWN` digits of the fraction and a sign that there are more; the rest is in the page."""
    whole, _, fraction = amount.partition(".")
    rest = format_html('<span class="rest">{}</span>', fraction[SHOWN:]) if fraction[SHOWN:] else ""
    return format_html(
        '<span class="amount" title="{}">{}<span class="fraction">{}{} {}</span></span>',
        f"{amount} {asset}",
        whole,
        f".{fraction[:SHOWN]}" if fraction else "",
        rest,
        asset,
    )


def duration(milliseconds: float | None) -> str:
    """`0.412 s`, `3 min 05 s`, `2 h 10 min`, `4 d 03 h`."""
    if milliseconds is None:
        return NOTHING
    seconds = max(0.0, milliseconds / 1000)
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago, to the second."""
    return NOTHING if moment is None else duration(int((now - moment).total_seconds()) * 1000)


def number(value: float | None, unit: str, digits: int = 1) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f} {unit}".rstrip()


def size(count: int) -> str:
    """Bytes in the largest unit that leaves at least one."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def short(value: object, head: int = 8) -> SafeString | str:
    """An id or hash cut in its middle, whole in its title; UUIDv7 differ at their ends."""
    text = "" if value is None else str(value)
    if len(text) <= head + 12:
        return text or NOTHING
    return format_html('<span class="code" title="{}">{}…{}</span>', text, text[:head], text[-6:])


def code(value: object) -> SafeString | str:
    """Hashes and addresses whole, in a face of one width."""
    return NOTHING if value in (None, "") else format_html('<span class="code whole">{}</span>', value)


def document(value: Any) -> SafeString | str:
    """Indented JSON in a box of its own; what is longer than the box may show is cut, and says so."""
    return NOTHING if value is None else block(_lines(value, ""))


def _lines(value: Any, indent: str) -> str:
    """Like indented JSON, with short lists on one line and pictures in base64 cut."""
    if isinstance(value, dict) and value:
        parts = [f"{_scalar(str(name))}: {_lines(value[name], indent + INDENT)}" for name in sorted(value)]
        return _enclose("{", parts, "}", indent)
    if isinstance(value, list) and value:
        parts = [_lines(item, indent + INDENT) for item in value]
        line = f"[{', '.join(parts)}]"
        return line if len(line) <= 80 and "\n" not in line else _enclose("[", parts, "]", indent)
    return _scalar(value)


def _enclose(opening: str, parts: list[str], closing: str, indent: str) -> str:
    inner = f",\n{indent}{INDENT}".join(parts)
    return f"{opening}\n{indent}{INDENT}{inner}\n{indent}{closing}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and len(value) > MAX_STRING:
        value = f"{value[:60]}… {len(value) - 60:,} more characters"
    return orjson.dumps(value, default=str).decode()


def block(text: str) -> SafeString | str:
    if not text:
        return NOTHING
    cut = len(text) - MAX_DOCUMENT
    tail = f"\n… {cut:,} more characters" if cut > 0 else ""
    return format_html('<pre class="document">{}{}</pre>', text[:MAX_DOCUMENT], tail)


def link(page: str, pk: object, text: object = None) -> SafeString | str:
    """To the change page of `app_model`; plain text where the console has no such page."""
    if pk is None:
        return NOTHING
    shown = text if text is not None else (short(pk) if isinstance(pk, UUID) else pk)
    try:
        url = reverse(f"admin:{page}_change", args=[str(pk)])
    except NoReverseMatch:
        return format_html("{}", shown)
    return format_html('<a class="link" href="{}">{}</a>', url, shown)


def to(row: Model | None) -> SafeString | str:
    """To the change page of `row`, by its name."""
    return NOTHING if row is None else link(row._meta.label_lower.replace(".", "_"), row.pk, row)


def listed(page: str, text: object, **filters: object) -> SafeString:
    """To the list of `app_model`, narrowed by `filters`."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return format_html('<a class="link" href="{}?{}">{}</a>', reverse(f"admin:{page}_changelist"), query, text)


def state(value: str, tones: Mapping[str, str] | None = None) -> SafeString:
    """A state as a badge, in the tone that `tones` gives it: success, warning, danger, info."""
    return format_html('<span class="state {}">{}</span>', (tones or {}).get(value, "plain"), value)


def verdict(ok: bool | None, text: str) -> SafeString:
    """A check's outcome by sign and word, not by colour alone."""
    sign, tone = {True: ("✓", "good"), False: ("✗", "bad"), None: ("○", "open")}[ok]
    return format_html('<span class="verdict {}"><span aria-hidden="true">{}</span> {}</span>', tone, sign, text)


def moment(at: datetime | None) -> SafeString | str:
    return NOTHING if at is None else format_html('<span class="nowrap">{}</span>', f"{at:%Y-%m-%d %H:%M:%S}")


def table(headers: tuple[str, ...], lines: Sequence[tuple[object, ...]], empty: str = "None.") -> SafeString | str:
    """A small table inside a page; what it says when there is no line."""
    if not lines:
        return empty
    head = format_html_join("", "<th>{}</th>", ((header,) for header in headers))
    rows = format_html_join(
        "", "<tr>{}</tr>", ((format_html_join("", "<td>{}</td>", ((cell,) for cell in line)),) for line in lines)
    )
    return format_html(
        '<div class="scroll"><table class="lines"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>', head, rows
    )
