"""AITBC: an open marketplace for AI compute.

The middleware classes are exported lazily, so that `import aitbc` needs no configured settings.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MIDDLEWARE = (
    "RequestIDMiddleware",
    "PerformanceLoggingMiddleware",
    "RequestValidationMiddleware",
    "RateLimitMiddleware",
    "ErrorHandlerMiddleware",
)
__all__ = ["__version__", *_MIDDLEWARE]


def __getattr__(name: str) -> Any:
    if name in _MIDDLEWARE:
        return getattr(import_module("aitbc.core.middleware"), name)
    raise AttributeError(f"module 'aitbc' has no attribute {name!r}")
