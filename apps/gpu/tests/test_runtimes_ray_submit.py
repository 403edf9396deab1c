import contextlib
import hashlib
import io
import zipfile

import jsonschema
import psutil
import pytest

from apps.gpu.agent import bubblewrap, selftest
from apps.gpu.agent.sandbox import MIB, Limits, Sandbox, Slot
from apps.gpu.runtimes import misfits, ray_submit
from apps.gpu.runtimes.contract import Code, Context, RuntimeFailure

TIERS = ["process"] if bubblewrap.missing() else ["process", "bubblewrap"]
PROGRAM = """
import os, ray
ray.init()

@ray.remote
def square(n):
    return n * n

total = sum(ray.get([square.remote(n) for n in range(10)]))
print("total", total, "processors", ray.cluster_resources()["CPU"])
open(os.environ["OUT"] + "/answer.txt", "w").write(str(total))
"""


def archive(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, text in files.items():
            made.writestr(f"{name}.py", text)
    return content.getvalue()


def run(sandbox, content, **more):
    sha256 = hashlib.sha256(content).hexdigest()
    job = {"entrypoint": "python main.py", "working_dir": sha256, **more}
    assert misfits("ray.submit", "input", job) == []
    assert ray_submit.RUNTIME.artifacts(job) == (sha256,)
    with sandbox.workspace() as workspace:
        workspace.place(sha256).write_bytes(content)
        limits = Limits(seconds=100, memory_bytes=4096 * MIB)
        outcome = sandbox.run(workspace, "job", {"kind": "ray.submit", "input": job}, limits, Slot())
        return outcome, dict(workspace.left())


def of_ray():
    return {
        p.pid for p in psutil.process_iter(["name"]) if p.info["name"].startswith(("raylet", "gcs_server", "ray::"))
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tier", TIERS)
def test_a_program_has_a_real_cluster_to_itself_which_ends_with_it(tier):
    before = of_ray()
    with contextlib.closing(Sandbox(tier=tier)) as sandbox:
        outcome, left = run(sandbox, archive(main=PROGRAM))
        assert of_ray() == before
        with pytest.raises(RuntimeFailure, match="exit code 7") as caught:
            run(sandbox, archive(main="import ray; ray.init(); raise SystemExit(7)"))
        tried = selftest.try_kind("ray.submit", sandbox, Slot())

    logs = left.pop(".logs").decode()
    jsonschema.validate(outcome.output | {"logs": "a" * 64}, ray_submit.RUNTIME.output_schema)
    assert outcome.output["status"] == "SUCCEEDED"
    assert "total 285 processors 1.0" in logs
    assert left == {"answer.txt": b"285"}
    assert (caught.value.code, caught.value.fault) == (Code.EXIT_CODE, "client")
    assert tried["ok"] is True
    assert of_ray() == before


@pytest.mark.parametrize(
    ("content", "resources", "reason"),
    [
        (b"not a zip", {}, "the working directory is not a zip file"),
        (archive(), {"cpus": 2}, "this cluster has 1 processors"),
    ],
)
def test_what_is_no_archive_or_asks_for_too_much_is_refused(tmp_path, content, resources, reason):
    (tmp_path / "archive").write_bytes(content)
    job = {"entrypoint": "true", "working_dir": "a" * 64, "resources": resources}

    with pytest.raises(RuntimeFailure, match=reason) as caught:
        ray_submit.run(job, Context(tmp_path, {"a" * 64: tmp_path / "archive"}))

    assert (caught.value.code, caught.value.fault) == (Code.INVALID_INPUT, "client")


def test_without_ray_the_kind_is_not_offered(monkeypatch):
    monkeypatch.setattr(ray_submit, "PACKAGE", "no_such_package")

    assert ray_submit.RUNTIME.available("cpu") == "not installed: no_such_package"
