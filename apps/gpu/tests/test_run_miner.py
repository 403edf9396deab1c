import configparser
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from aitbc.core.testing import cast
from apps.gpu.agent import selftest
from apps.gpu.agent.config import SETTINGS, read_config
from apps.gpu.agent.zygote import ROOT
from apps.gpu.management.commands.run_miner import Command
from apps.gpu.tests.serving import free_port, serving


def run_miner(*arguments, var, **environment):
    """The command as a provider starts it: nothing but this checkout, and no store that answers."""
    nowhere = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "CHAIN_RPC_URL": "http://127.0.0.1:1",
        "DJANGO_SETTINGS_MODULE": "aitbc.settings.local",
        "AITBC_VAR": str(var),
    }
    return subprocess.run(
        [sys.executable, "manage.py", "run_miner", *arguments],
        cwd=ROOT, env={**os.environ, **nowhere, **environment}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_the_self_test_really_runs_every_kind_and_needs_no_store(tmp_path):
    done = run_miner("--self-test", "--json", "--cpus", "0", var=tmp_path)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert {"bench.matmul", "onnx.infer", "vision.ocr"} <= set(report["kinds"])
    assert all(result["ok"] and result["milliseconds"] > 0 for result in report["kinds"].values())
    assert [device["cpus"] for device in report["devices"]] == [[0]]
    assert report["sandbox"]["tier"] in ("process", "bubblewrap")
    assert not set(report["kinds"]) & set(report["unavailable"])
    assert report["checks"]["platform"] == {"ok": False, "required": False, "reason": "not asked: give --url"}
    assert report["checks"][f"disk {tempfile.gettempdir()}"]["ok"] is True
    text = "\n".join(selftest.lines(report))
    assert f"ok        bench.matmul: {report['kinds']['bench.matmul']['milliseconds']} ms" in text
    assert "note      platform: not asked: give --url" in text


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        ((), "ait_abc_secret1", "give --key-file"),
        (("--key-file", "KEY"), "hello", "does not hold an API key"),
        (("--key-file", "/nonexistent/key"), "", "No such file"),
        (("--key-file", "KEY", "--slots", "0"), "ait_abc_secret1", "must be more than nothing"),
        (("--key-file", "KEY", "--price", "0"), "ait_abc_secret1", "must be more than nothing"),
        (("--key-file", "KEY", "--price", "-1"), "ait_abc_secret1", "plain decimal number"),
        (("--key-file", "KEY", "--cpus", "9999"), "ait_abc_secret1", "may not use the processors"),
        (("--key-file", "KEY", "--cpus", "x"), "ait_abc_secret1", "argument --cpus: invalid"),
        (("--key-file", "KEY", "--devices", "GPU-none"), "ait_abc_secret1", "no such device on this machine"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, arguments, key, message):
    (tmp_path / "key").write_text(key)
    named = [str(tmp_path / "key") if word == "KEY" else word for word in arguments]

    with pytest.raises(CommandError, match=message) as caught:
        call_command("run_miner", *named, "--state-dir", str(tmp_path / "state"))

    assert "secret1" not in str(caught.value)


# -- the configuration file --------------------------------------------------------------------
CONFIG = """
key_file = "/etc/aitbc/miner.key"  # a comment
url = "https://aitbc.example"
price = "0.002"
kinds = ["bench.matmul", "vision.ocr"]
cpus = [0, 1]
slots = 2
sandbox = "bubblewrap"
"""


def settled(path, *flags):
    command = Command()
    options = vars(command.create_parser("manage.py", "run_miner").parse_args(["--config", str(path), *flags]))
    return command._settled(options)


def test_settings_come_from_the_flag_else_the_file_else_the_default(tmp_path):
    path = tmp_path / "miner.toml"
    path.write_text(CONFIG)

    options = settled(path, "--slots", "1", "--cpus", "0-2")

    assert {name: options[name] for name in SETTINGS} == {
        **{name: setting.default for name, setting in SETTINGS.items()},
        "key_file": Path("/etc/aitbc/miner.key"), "url": "https://aitbc.example", "price": "0.002",
        "kinds": ("bench.matmul", "vision.ocr"), "cpus": (0, 1, 2), "slots": 1, "sandbox": "bubblewrap",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "a"\n\nprize = "0.1"', r"line 3, prize: no such setting; there are key_file, url, name"),
        ('slots = "many"', r"line 1, slots: invalid literal for int"),
        ('# slots\n  "slots" = 1.5', r"line 2, slots: invalid literal"),
        ("slots = true", r"line 1, slots: give a text, a number or a list"),
        ('[url]\nhost = "x"', r"line 1, url: give a text"),
        ('sandbox = "none"', r"line 1, sandbox: one of process, bubblewrap"),
        ('cpus = ["9-1"]', r"line 1, cpus: 9-1 names no processor"),
        ("# x\nname = ?", r"miner.toml: Invalid value .at line 2, column 8"),
    ],
)
def test_a_wrong_line_of_the_file_is_named(tmp_path, text, words):
    path = tmp_path / "miner.toml"
    path.write_text(text)

    with pytest.raises(ValueError, match=words):
        read_config(path)
    with pytest.raises(CommandError, match=r"miner\.toml"):
        call_command("run_miner", "--config", str(path))


# -- the unit ----------------------------------------------------------------------------------
def test_the_unit_runs_this_checkout_with_the_file_and_leaves_time_to_drain(tmp_path, capsys):
    path = tmp_path / "miner.toml"
    path.write_text('key_file = "/etc/aitbc/miner.key"\ndrain_seconds = 100')

    call_command("run_miner", "--config", str(path), "--print-systemd")

    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(capsys.readouterr().out)
    assert unit["Service"]["ExecStart"] == (
        f"{sys.executable} {ROOT}/manage.py run_miner --config {path} --key-file %d/api-key --state-dir %S/aitbc-miner"
    )
    assert unit["Service"]["LoadCredential"] == "api-key:/etc/aitbc/miner.key"
    assert int(unit["Service"]["TimeoutStopSec"]) == 160
    assert {unit["Service"][name] for name in ("NoNewPrivileges", "DynamicUser", "PrivateTmp")} == {"yes"}
    # What bubblewrap needs for the jobs' own namespaces must not be taken away.
    assert not {"RestrictNamespaces", "ProtectKernelTunables", "ProtectProc"} & set(unit["Service"])


def test_a_unit_needs_the_file_and_the_key(tmp_path):
    with pytest.raises(CommandError, match="give --config, and the key_file in it"):
        call_command("run_miner", "--print-systemd")


# -- the report --------------------------------------------------------------------------------
def test_the_platform_the_key_and_the_clock_are_asked(committed_db, tmp_path):
    mike, nobody, fresh = cast.seller("mike"), cast.person("nina", scopes=("jobs:read",)), cast.person("nora")
    with serving(free_port()) as url:
        checks, refused, new = (selftest.surroundings(url, who.token, tmp_path) for who in (mike, nobody, fresh))

    assert checks["platform"]["ok"]
    assert checks["clock"]["ok"], checks
    assert checks["key"] == {"ok": True, "required": True, "reason": "of the miner mike"}
    assert refused["key"] == {
        "ok": False, "required": True, "reason": "this key lacks the scope miner (auth.scope)"}  # fmt: skip
    assert new["key"] == {"ok": True, "required": True, "reason": "valid; no miner has registered with it yet"}


def test_a_platform_that_does_not_answer_or_a_full_disk_fails_the_test(tmp_path, monkeypatch):
    monkeypatch.setattr(selftest, "DISK_BYTES", 1 << 60)
    checks = selftest.surroundings("http://127.0.0.1:1", None, tmp_path)

    verdicts = {name: (check["ok"], check["required"]) for name, check in checks.items()}
    assert verdicts == dict.fromkeys((f"disk {tempfile.gettempdir()}", f"disk {tmp_path}", "platform"), (False, True))
    nothing = {key: {} for key in ("absent", "kinds", "unavailable")}
    report = {"sandbox": {"tier": "process"}, "devices": [], "checks": checks} | nothing
    assert "FAILED    platform: http://127.0.0.1:1 does not answer" in "\n".join(selftest.lines(report))
