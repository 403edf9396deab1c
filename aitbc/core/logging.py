"""Structured logs: JSON in production, readable lines on a terminal; secrets are blanked in both."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from django.conf import settings

_HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(r"authorization|passw|passphrase|secret|token(?!s)|private|mnemonic|api_?key|cookie", re.I)
_SECRET_TEXT = re.compile(
    r"ait_[0-9a-z]{8,}_[0-9A-Za-z_-]{20,}"  # our API keys
    r"|(?<=Bearer )\s*\S+"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user:password of a URL
    r"|(?:(?<=password=)|(?<=secret=)|(?<=token=))[^\s&\"']+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.I | re.S,
)


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name not in ("_record", "_from_structlog"):
            event[name] = _HIDDEN if _SECRET_NAME.search(name) else _clean(value)
    return event


def _clean(value: Any) -> Any:
    """Without secrets, at any depth; what is no plain value is shown as text first."""
    if isinstance(value, str):
        return _SECRET_TEXT.sub(_HIDDEN, value)
    if isinstance(value, dict):
        return {name: _HIDDEN if _SECRET_NAME.search(str(name)) else _clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float) else _clean(repr(value))


def configure() -> None:
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    final = (
        structlog.processors.JSONRenderer()
        if settings.LOG_FORMAT == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, final]
        )
    )
    root = logging.getLogger()
    root.handlers = [h for h in root.handlers if type(h) is not logging.StreamHandler] + [handler]
    root.setLevel(settings.LOG_LEVEL)
    for noisy in ("httpx", "httpcore", "web3", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A refusal is an answer, not an incident; our own middleware logs what is.
    logging.getLogger("django.request").setLevel(logging.ERROR)
