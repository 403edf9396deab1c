import json
import os
import signal
import socket
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from aitbc.core import money
from aitbc.core.errors import DomainError
from apps.gpu.agent import selftest
from apps.gpu.agent.detect import Detection, detect, parse_cpus
from apps.gpu.agent.identity import load_identity, read_api_key
from apps.gpu.agent.loop import Agent, Config
from apps.gpu.agent.sandbox import MIB, Sandbox, Slot
from apps.gpu.agent.transport import HttpTransport

DEFAULT_URL = "http://127.0.0.1:8000"


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _local_url() -> str:
    running = settings.VAR_DIR / "run" / "platform.json"
    return str(json.loads(running.read_text())["url"]) if running.exists() else DEFAULT_URL


class Command(BaseCommand):
    """The miner daemon. It needs HTTPS to the platform and nothing else: no database, no broker."""

    help = "Sell this machine's compute: detect and measure it, register, run jobs. Ends after SIGTERM, drained."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--key-file", type=Path, help="file with the API key (scope miner)")
        parser.add_argument("--url", help=f"the platform; default: the one running here, else {DEFAULT_URL}")
        parser.add_argument("--once", action="store_true", help="end after one job, or 30 s without one")
        parser.add_argument("--kinds", type=_words, help="offer only these job kinds: a,b")
        parser.add_argument("--models", type=_words, default=(), help="names of models kept here: a,b")
        parser.add_argument("--llm-url", help="OpenAI-compatible server for llm.chat: http://127.0.0.1:8080/v1")
        parser.add_argument("--cpus", type=parse_cpus, default=(), help="offer these processors: 0 or 0-3,6")
        parser.add_argument("--devices", type=_words, default=(), help="offer only these accelerators, by uuid")
        parser.add_argument("--name", default=socket.gethostname())
        parser.add_argument("--region", default="local")
        parser.add_argument("--price", default="0.001", help="AIT per device second")
        parser.add_argument("--slots", type=int, default=1, help="jobs at a time")
        parser.add_argument("--memory-mb", type=int, default=2048, help="resident memory of one job")
        parser.add_argument("--sandbox", choices=["process", "bubblewrap"], help="default: the strongest here")
        parser.add_argument("--state-dir", type=Path, help="keeps the signing key; default var/miners/<prefix>")
        parser.add_argument("--self-test", action="store_true", help="try every part, print a JSON report, end")
        parser.add_argument("--json", action="store_true", help="print what was done as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._self_test(options) if options["self_test"] else self._serve(options)
        except DomainError as error:
            raise CommandError(f"{error.message} ({error.code})") from error
        except (ValueError, OSError, RuntimeError) as error:
            raise CommandError(str(error)) from error

    def _detect(self, options: dict[str, Any]) -> tuple[Detection, int]:
        """The devices to offer and the threads of one slot; keeps this process on its processors."""
        detection = detect(cpus=options["cpus"], only=options["devices"])
        cpus = detection.devices[0].cpus or sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus)
        return detection, max(1, len(cpus) // options["slots"])

    def _self_test(self, options: dict[str, Any]) -> None:
        detection, threads = self._detect(options)
        sandbox = Sandbox(tier=options["sandbox"], threads=threads)
        try:
            report = selftest.run(detection, sandbox, Slot(detection.devices[0].kind, threads))
        finally:
            sandbox.close()
        self.stdout.write(json.dumps(report, indent=2))
        if not report["ok"]:
            raise CommandError("the self-test failed; see the report")

    def _serve(self, options: dict[str, Any]) -> None:
        if options["key_file"] is None:
            raise CommandError("give --key-file, the file with the miner's API key")
        if options["slots"] < 1 or options["memory_mb"] < 64 or money.units(options["price"], 18) < 1:
            raise CommandError("slots, memory and price must be more than nothing")
        api_key, prefix = read_api_key(options["key_file"])
        state = options["state_dir"] or settings.VAR_DIR / "miners" / prefix
        identity = load_identity(state / "signing.key")
        detection, threads = self._detect(options)
        transport, sandbox = HttpTransport(options["url"] or _local_url(), api_key), None
        try:
            sandbox = Sandbox(tier=options["sandbox"], threads=threads)
            agent = Agent(
                transport=transport,
                identity=identity,
                sandbox=sandbox,
                devices=detection.devices,
                config=self._config(options),
                prefix=prefix,
            )
            self._run(agent, options)
        finally:
            if sandbox is not None:
                sandbox.close()
            transport.close()

    def _config(self, options: dict[str, Any]) -> Config:
        return Config(
            name=options["name"],
            region=options["region"],
            price=options["price"],
            slots=options["slots"],
            kinds=options["kinds"],
            models=options["models"],
            memory_bytes=options["memory_mb"] * MIB,
            allow_client_code=settings.DEVELOPMENT,
            llm_url=options["llm_url"],
        )

    def _run(self, agent: Agent, options: dict[str, Any]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        summary = agent.run(once=options["once"])
        done = {"miner": summary.miner, "jobs": dict(summary.jobs)}
        shown = ", ".join(f"{count} {how}" for how, count in summary.jobs.items()) or "no job"
        self.stdout.write(json.dumps(done) if options["json"] else f"miner {summary.miner}: {shown}")
