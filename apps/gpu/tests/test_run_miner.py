import json
import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from apps.gpu.agent.zygote import ROOT


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
    done = run_miner("--self-test", "--cpus", "0", var=tmp_path)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert {"bench.matmul", "onnx.infer", "vision.ocr"} <= set(report["kinds"])
    assert all(result["ok"] and result["milliseconds"] > 0 for result in report["kinds"].values())
    assert [device["cpus"] for device in report["devices"]] == [[0]]
    assert report["sandbox"]["tier"] in ("process", "bubblewrap")
    assert not set(report["kinds"]) & set(report["unavailable"])


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
