"""A world whose clock is a file: the database server and the processes that use it read their time from there.

libfaketime answers every clock_gettime of a process that was started with it. Waiting is not faked: what sleeps a
second sleeps a second; what asks for the time is told the simulated one.
"""

import os
from importlib.util import find_spec
from pathlib import Path


def library() -> Path:
    spec = find_spec("libfaketime")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


class Clock:
    """How far the world is ahead of the machine, in seconds; it only goes forward."""

    def __init__(self, file: Path) -> None:
        self.file, self.ahead = file, 0.0
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def forward(self, seconds: float) -> None:
        assert seconds >= 0
        self.ahead += seconds
        self._write()

    def _write(self) -> None:
        """In one step: a reader never sees half a number."""
        draft = self.file.with_suffix(".new")
        draft.write_text(f"+{self.ahead:.6f}\n")
        draft.chmod(0o644)
        os.replace(draft, self.file)
