"""The process in which a simulation runs: its own folder, PostgreSQL and Redis, on simulated time.

`python -m tests.simulation.world FOLDER MODULE ARGUMENTS...` starts the servers, migrates, calls `MODULE.run(clock,
ARGUMENTS)` and prints what it returns as one JSON line.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from tests.simulation.clock import Clock


def main(folder: Path, module: str, arguments: list[str]) -> None:
    clock = Clock(folder / "clock")
    if "LD_PRELOAD" not in os.environ:  # the library is only looked at when a program begins
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation.world", str(folder), module, *arguments],
            {**os.environ, **clock.environment},
        )
    from aitbc import stack
    from aitbc.stack import postgres

    postgres._ENVIRONMENT |= clock.environment
    postgres._SETTINGS |= {"fsync": "off"}  # nothing crashes here, and a week has many commits
    stack.up(("postgres", "redis"), owned=True)
    try:
        result = _run(clock, module, arguments)
    finally:
        stack.down(("postgres", "redis"))
    sys.stdout.write(json.dumps(result) + "\n")


def _run(clock: Clock, module: str, arguments: list[str]) -> object:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    try:
        return importlib.import_module(module).run(clock, arguments)
    finally:
        connections.close_all()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
