import json
import os
import signal
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from aitbc.core import money
from aitbc.core.errors import DomainError
from apps.gpu.agent import selftest
from apps.gpu.agent.config import SETTINGS, read_config
from apps.gpu.agent.detect import Detection, detect
from apps.gpu.agent.identity import load_identity, read_api_key
from apps.gpu.agent.loop import Agent, Config
from apps.gpu.agent.sandbox import MIB, Sandbox, Slot
from apps.gpu.agent.transport import HttpTransport

DEFAULT_URL = "http://127.0.0.1:8000"


def _local_url() -> str:
    running = settings.VAR_DIR / "run" / "platform.json"
    return str(json.loads(running.read_text())["url"]) if running.exists() else DEFAULT_URL


class Command(BaseCommand):
    """The miner daemon. It needs HTTPS to the platform and nothing else: no database, no broker."""

    help = "Sell this machine's compute: detect and measure it, register, run jobs. Ends after SIGTERM, drained."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name, setting in SETTINGS.items():
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=setting.read, choices=setting.choices, help=setting.help)
        parser.add_argument("--config", type=Path, help="TOML file with these settings; flags win over it")
        parser.add_argument("--once", action="store_true", help="end after one job, or 30 s without one")
        parser.add_argument("--self-test", action="store_true", help="try every part for real, report, end")
        parser.add_argument("--print-systemd", action="store_true", help="print a unit that runs this miner, end")
        parser.add_argument("--json", action="store_true", help="print what was done as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            options = self._settled(options)
            if options["print_systemd"]:
                return self._print_unit(options)
            self._self_test(options) if options["self_test"] else self._serve(options)
        except DomainError as error:
            raise CommandError(f"{error.message} ({error.code})") from error
        except (ValueError, OSError, RuntimeError) as error:
            raise CommandError(str(error)) from error

    def _settled(self, options: dict[str, Any]) -> dict[str, Any]:
        """Each setting by its flag, else by the file, else by its default."""
        given = {name: value for name, value in options.items() if value is not None}
        filed = read_config(options["config"]) if options["config"] else {}
        return {name: setting.default for name, setting in SETTINGS.items()} | {"config": None} | filed | given

    def _print_unit(self, options: dict[str, Any]) -> None:
        if options["config"] is None or options["key_file"] is None:
            raise CommandError("give --config, and the key_file in it: the unit names both")
        paths = {name: options[name].resolve() for name in ("config", "key_file")}
        unit = (Path(selftest.__file__).parent / "miner.service").read_text()
        stop = options["drain_seconds"] + 60
        self.stdout.write(unit.format(root=settings.BASE_DIR, python=sys.executable, stop=stop, **paths))

    def _detect(self, options: dict[str, Any]) -> tuple[Detection, int]:
        """The devices to offer and the threads of one slot; keeps this process on its processors."""
        detection = detect(cpus=options["cpus"], only=options["devices"])
        cpus = detection.devices[0].cpus or sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus)
        return detection, max(1, len(cpus) // options["slots"])

    def _self_test(self, options: dict[str, Any]) -> None:
        detection, threads = self._detect(options)
        api_key = read_api_key(options["key_file"])[0] if options["key_file"] else None
        checks = selftest.surroundings(options["url"], api_key, options["state_dir"] or settings.VAR_DIR)
        sandbox = Sandbox(tier=options["sandbox"], threads=threads)
        try:
            report = selftest.run(detection, sandbox, Slot(detection.devices[0].kind, threads), checks)
        finally:
            sandbox.close()
        self.stdout.write(json.dumps(report, indent=2) if options["json"] else "\n".join(selftest.lines(report)))
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
                config=self._config(options, state / "undelivered"),
                prefix=prefix,
            )
            self._run(agent, options)
        finally:
            if sandbox is not None:
                sandbox.close()
            transport.close()

    def _config(self, options: dict[str, Any], undelivered: Path) -> Config:
        return Config(
            name=options["name"],
            region=options["region"],
            price=options["price"],
            slots=options["slots"],
            kinds=options["kinds"],
            models=options["models"],
            memory_bytes=options["memory_mb"] * MIB,
            allow_client_code=settings.DEVELOPMENT,
            drain_seconds=options["drain_seconds"],
            undelivered=undelivered,
            llm_url=options["llm_url"],
        )

    def _run(self, agent: Agent, options: dict[str, Any]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        summary = agent.run(once=options["once"])
        done = {"miner": summary.miner, "jobs": dict(summary.jobs)}
        shown = ", ".join(f"{count} {how}" for how, count in summary.jobs.items()) or "no job"
        self.stdout.write(json.dumps(done) if options["json"] else f"miner {summary.miner}: {shown}")
