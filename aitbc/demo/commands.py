"""Management commands as an operator runs them: each in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aitbc.demo.failure import Failed
from aitbc.stack.paths import REPOSITORY

JSON = dict[str, Any]


def run(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """The ended command, whatever its exit code; `given` is its standard input."""
    return subprocess.run(
        [sys.executable, "manage.py", *map(str, arguments)],
        cwd=REPOSITORY,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def ask(*arguments: str | Path, given: str = "") -> JSON:
    """The JSON object that a command prints with --json; Failed with its own words when it ends otherwise."""
    done = run(*arguments, "--json", given=given)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise Failed(f"manage.py {arguments[0]} ended with exit code {done.returncode}: {said}")
    answer: JSON = json.loads(lines[-1])
    return answer


def ask_all(calls: Sequence[tuple[tuple[str, ...], str]]) -> list[JSON]:
    """Several commands (arguments, standard input), two at a time; answers in the order given."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda call: ask(*call[0], given=call[1]), calls))
