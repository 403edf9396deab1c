"""Chain workers as processes of their own, each of which may kill itself with -9 at a named step.

Started once by a test, it loads Django and waits; for each line on its input it forks a worker that runs
`manage.py run_chain --once`, and answers with the signal and the exit code of its end. The product has no
hooks: the steps are wrapped here.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(when: str, original: Callable[..., Any], applies: Callable[..., bool]) -> Callable[..., Any]:
    def step(*args: Any, **options: Any) -> Any:
        if not applies(*args, **options):
            return original(*args, **options)
        if when == "before":
            kill()
        original(*args, **options)
        return kill()

    return step


def arm(name: str, when: str) -> None:
    from aitbc.chain import keystore, transactions, worker
    from aitbc.chain.client import Client
    from aitbc.chain.models import FinalEvent, Intent

    def is_mined(*args: Any, **changes: Any) -> bool:
        return changes.get("state") == Intent.State.MINED

    def has_events(status: Any) -> bool:
        return FinalEvent.objects.filter(id__gt=status.event_cursor).exists()

    target, attribute, applies = {
        "reserve": (transactions, "next_nonce", None),
        "sign": (keystore.Signer, "sign_transaction", None),
        "store": (worker, "sign_and_store", None),
        "broadcast": (Client, "send_raw", None),
        "mined": (worker.Worker, "_save", is_mined),
        "final": (worker.Worker, "_resolve", None),
        "inside final": (Intent, "refresh_from_db", None),  # its row is written, nothing is committed yet
        "posted": (worker.indexer, "dispatch", has_events),
        "pause": (threading.Event, "wait", None),
    }[name]
    original = getattr(target, attribute)
    setattr(target, attribute, dying(when, original, applies or (lambda *args, **options: True)))


def work() -> None:
    """`run_chain --once`, with a block whenever one is wanted; a killed worker's lock may take a moment."""
    from django.core.management import CommandError, call_command

    from aitbc.chain.management.commands import run_chain
    from aitbc.chain.worker import Worker

    run_chain.Worker = lambda client: Worker(client, block_seconds=0)
    run_chain.BUSY_SECONDS = 0.002
    deadline = time.monotonic() + 20
    while True:
        try:
            return call_command("run_chain", "--once")
        except CommandError as error:
            if "another chain worker" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def child(order: dict[str, str]) -> None:
    code = 1
    try:
        if order["step"]:
            arm(order["step"], order["when"])
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    given = json.loads(sys.stdin.readline())
    import django
    from django.conf import settings

    django.setup()
    from django.db import connections

    for alias, name in given["databases"].items():
        connections[alias].settings_dict["NAME"] = settings.DATABASES[alias]["NAME"] = name
    from pathlib import Path

    for name, value in given["settings"].items():
        setattr(settings, name, Path(value) if name == "KEYS_DIR" else value)
    import eth_account  # noqa: F401 - loaded once, not by each worker
    import eth_keyfile  # noqa: F401

    import aitbc.chain.management.commands.run_chain  # noqa: F401

    print(json.dumps({"ready": True}), flush=True)  # noqa: T201 - the answer
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        _, status = os.waitpid(pid, 0)
        ended = {"signal": os.WTERMSIG(status), "code": os.WEXITSTATUS(status)}
        print(json.dumps(ended), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
