import contextlib
import hashlib
import os
import socket
import time

import jsonschema
import psutil
import pytest

from aitbc.core.testing import cast
from apps.gpu.agent import bubblewrap
from apps.gpu.agent.engine import Engine
from apps.gpu.agent.loop import Config, kinds_to_offer
from apps.gpu.agent.sandbox import MIB, Limits, Sandbox, Slot
from apps.gpu.runtimes import container_run, misfits
from apps.gpu.runtimes.commands import TEXT_BYTES
from apps.gpu.runtimes.contract import Code, RuntimeFailure
from apps.gpu.tests.steps import lease_of, read, refused, submit

TIERS = ["process"] if bubblewrap.missing() else ["process", "bubblewrap"]
DIGEST = "@sha256:" + "a" * 64


@pytest.fixture(scope="module", params=TIERS)
def sandbox(request):
    patch = pytest.MonkeyPatch()
    patch.setenv("PLANTED_SECRET", "ait_secret")
    with contextlib.closing(Sandbox(tier=request.param)) as made:
        yield made
    patch.undo()


def run(sandbox, *command, files=None, limits=None, **more):
    """-> (output, the files it left); the input is checked as the platform checks it."""
    job = {"command": list(command), **more}
    with sandbox.workspace() as workspace:
        for path, content in (files or {}).items():
            sha256 = hashlib.sha256(content).hexdigest()
            workspace.place(sha256).write_bytes(content)
            job.setdefault("files", {})[path] = sha256
        assert misfits("container.run", "input", job) == []
        payload = {"kind": "container.run", "input": job}
        outcome = sandbox.run(workspace, "job", payload, Limits(**{"seconds": 30} | (limits or {})), Slot())
        jsonschema.validate(outcome.output, container_run.RUNTIME.output_schema)
        return outcome.output, dict(workspace.left())


def failure(sandbox, *command, **more):
    with pytest.raises(RuntimeFailure) as caught:
        run(sandbox, *command, **more)
    return caught.value


def test_a_command_gets_files_and_variables_and_leaves_files(sandbox):
    script = 'cat in/a.txt; echo "$WHO" >&2; mkdir "$OUT/deep"; tr a-z A-Z < in/a.txt > "$OUT/deep/b.txt"'

    output, left = run(sandbox, "sh", "-c", script, files={"in/a.txt": b"hello\n"}, env={"WHO": "alice"})

    assert output == {"exit_code": 0, "stdout": "hello\n", "stderr": "alice\n", "files": {}}
    assert left == {"deep/b.txt": b"HELLO\n"}


def test_another_exit_code_is_the_clients_fault(sandbox):
    caught = failure(sandbox, "sh", "-c", "echo first >&2; echo no such thing >&2; exit 3")

    assert (caught.code, caught.fault) == (Code.EXIT_CODE, "client")
    assert caught.message == "the command ended with exit code 3: no such thing"


def test_a_command_that_is_not_there_is_the_clients_fault(sandbox):
    caught = failure(sandbox, "no-such-program")

    assert (caught.code, caught.fault) == (Code.INVALID_INPUT, "client")


def test_a_command_over_its_own_time_is_ended(sandbox):
    begun = time.monotonic()

    caught = failure(sandbox, "sleep", "60", timeout=0.4)

    assert (caught.code, caught.fault) == (Code.TIMEOUT, "client")
    assert caught.message == "the command ran longer than its 0.4 seconds"
    assert time.monotonic() - begun < 10


def test_no_variable_of_the_miner_reaches_a_command(sandbox):
    output, _ = run(sandbox, "env")

    names = {line.split("=")[0] for line in output["stdout"].splitlines()}
    assert "PLANTED_SECRET" in os.environ
    assert {"HOME", "OUT", "PATH"} <= names
    assert not {name for name in names if "SECRET" in name or name.startswith(("DJANGO", "DATABASE", "AITBC"))}
    assert "ait_secret" not in output["stdout"]


def test_a_command_reaches_no_network_not_even_the_hosts_own(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        python = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        caught = failure(sandbox, bubblewrap.sys.executable, "-c", python)
    interfaces, _ = run(sandbox, "sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1")

    assert caught.code == Code.EXIT_CODE
    assert caught.message.endswith(("Connection refused", "Network is unreachable"))
    assert interfaces["stdout"].split() == ["lo"]


def test_files_of_the_host_are_hidden_or_the_kind_is_not_offered(sandbox, tmp_path):
    config = Config(name="m", region="eu", price="0.001", allow_client_code=True)

    if sandbox.exposed:
        assert sandbox.tier == "process"
        assert "container.run" not in kinds_to_offer(config, sandbox, "cpu")
        with pytest.raises(ValueError, match=r"container\.run: not offered in this sandbox"):
            kinds_to_offer(Config(**vars(config) | {"kinds": ("container.run",)}), sandbox, "cpu")
    else:
        assert "container.run" in kinds_to_offer(config, sandbox, "cpu")
        assert "No such file" in failure(sandbox, "cat", "/etc/shadow").message
        (tmp_path / "planted").write_text("secret")
        assert "No such file" in failure(sandbox, "cat", str(tmp_path / "planted")).message
        assert run(sandbox, "id", "-u")[0]["stdout"] == "65534\n"


def sleepers():
    return {p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == "sleep"}


@pytest.mark.parametrize("way", ["sleep 60 &", "(setsid sleep 60 &)"])
def test_a_command_that_forks_on_and_on_is_ended_with_all_it_started(sandbox, way):
    before = sleepers()

    caught = failure(sandbox, "sh", "-c", f"for i in $(seq 700); do {way} done; wait; sleep 60")

    assert (caught.code, caught.fault) == (Code.PROCESSES, "client")
    assert caught.message == "the job had more than 512 processes"
    deadline = time.monotonic() + 10
    while left := sleepers() - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_memory_of_what_a_command_starts_is_counted(sandbox):
    hog = "import time\nkept = b'x' * (300 << 20)\ntime.sleep(60)"

    caught = failure(sandbox, bubblewrap.sys.executable, "-c", hog, limits={"memory_bytes": 200 * MIB})

    assert (caught.code, caught.fault) == (Code.MEMORY, "client")


def test_a_flood_of_words_is_cut(sandbox):
    output, _ = run(sandbox, "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' a; printf 'x\\000y' >&2")

    assert output["stdout"] == "a" * TEXT_BYTES
    assert output["stderr"] == "x\ufffdy"


def test_links_are_not_delivered(sandbox):
    assert run(sandbox, "sh", "-c", 'rmdir "$OUT"; ln -s /etc "$OUT"')[1] == {}
    assert run(sandbox, "sh", "-c", 'ln -s /etc "$OUT/etc"')[1] == {}
    with pytest.raises(OSError, match="symbolic links"):
        run(sandbox, "sh", "-c", 'ln -s /etc/shadow "$OUT/shadow"')
    with pytest.raises(OSError, match="is no plain file"):
        run(sandbox, "sh", "-c", 'mkfifo "$OUT/pipe"')


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../x", "a//b", "a/", ".", "", "x" * 201])
def test_files_stay_in_their_folder(path):
    wrong = misfits("container.run", "input", {"command": ["true"], "files": {path: "a" * 64}})

    assert [error["loc"] for error in wrong] == [["body", "input", "files"]]


@pytest.mark.parametrize(
    "image", ["alpine", "alpine:3", "alpine@sha256:abc", "--privileged" + DIGEST, "Alpine" + DIGEST]
)
def test_an_image_is_named_by_its_digest(image):
    assert misfits("container.run", "input", {"command": ["true"], "image": "docker.io/library/alpine" + DIGEST}) == []
    wrong = misfits("container.run", "input", {"command": ["true"], "image": image})

    assert [error["loc"] for error in wrong] == [["body", "input", "image"]]


def test_a_job_with_an_image_goes_only_to_a_miner_with_an_engine(alice):
    plain = cast.seller("plain", kinds=("container.run",))
    able = cast.seller("able", kinds=("container.run",), models=(container_run.IMAGES,))

    job = submit(alice, kind="container.run", input={"command": ["true"], "image": "alpine" + DIGEST})

    assert plain.poll() == []
    assert [lease["id"] for lease in able.poll()] == [job["id"]]


def test_the_client_may_read_the_files_of_his_result_and_nobody_elses(alice, mallory, artifacts_dir):
    mike = cast.seller("mike", kinds=("container.run",))
    content = b"what the command left"
    sha256 = hashlib.sha256(content).hexdigest()
    output = {"exit_code": 0, "stdout": "", "stderr": "", "files": {"a.txt": sha256}}
    lease = lease_of(alice, mike, kind="container.run", input={"command": ["true"]})
    refused(mike.deliver(lease, output), 404, "artifact.unknown")  # not his to give: he never uploaded it
    assert mike.put(f"/v1/artifacts/{sha256}", content).status_code == 201

    assert mike.deliver(lease, output).status_code == 200

    assert read(alice.get(f"/v1/jobs/{lease['id']}/result"))["output"] == output
    assert b"".join(alice.get(f"/v1/artifacts/{sha256}").streaming_content) == content
    refused(mallory.get(f"/v1/artifacts/{sha256}"), 404, "artifact.unknown")


# A stand-in that plays the engine's command line: no engine runs in a test, its arguments are what is checked.
_PODMAN = """#!/bin/sh
echo "$@" >> "$0.calls"
case "$1" in
  info) echo true ;;
  pull) test "$3" != "gone" || { echo "manifest unknown" >&2; exit 125; } ;;
  run) for a in "$@"; do case "$a" in --volume=*:/out) a=${a#--volume=}; echo made > "${a%:/out}/made.txt";; esac; done
       echo out; echo err >&2; exit "${ENGINE_EXIT:-0}" ;;
esac
"""


@pytest.fixture
def podman(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(_PODMAN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_an_image_runs_without_network_rights_or_socket(sandbox, podman):
    engine = Engine.find()
    job = {"command": ["sh", "-c", "true"], "image": "alpine" + DIGEST, "env": {"A": "1"}}
    with sandbox.workspace() as workspace:
        engine.pull(job["image"])
        outcome = engine.run(job, workspace, Limits(seconds=9, memory_bytes=100 * MIB), 2, lambda: False)
        left = dict(workspace.left())

    assert outcome.output == {"exit_code": 0, "stdout": "out\n", "stderr": "err\n", "files": {}}
    assert left == {"made.txt": b"made\n"}
    assert outcome.metrics["sandbox"] == {"tier": "podman", "network": "none"}
    _, pull, call, removed = (podman.parent / "podman.calls").read_text().splitlines()
    words = call.split()
    assert pull == f"pull -q alpine{DIGEST}"
    wanted = ["--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", "--pull=never"]
    wanted += [
        "--pids-limit=512",
        f"--memory={100 * MIB}",
        "--cpus=2",
        "--userns=keep-id",
        "--env=A=1",
        "--entrypoint=",
    ]
    assert set(wanted) <= set(words)
    assert words[-4:] == ["alpine" + DIGEST, "sh", "-c", "true"]
    assert [w for w in words if w.startswith("--volume=")] == [
        f"--volume={workspace.folder}/work:/work",
        f"--volume={workspace.folder}/out:/out",
    ]
    assert removed.startswith("rm -f aitbc-")


def test_an_image_that_cannot_be_had_or_fails_is_the_clients_fault(sandbox, podman, monkeypatch):
    with pytest.raises(RuntimeFailure, match="the image cannot be had: manifest unknown") as caught:
        Engine.find().pull("gone")
    monkeypatch.setenv("ENGINE_EXIT", "9")
    job = {"command": ["true"], "image": "alpine" + DIGEST}

    with sandbox.workspace() as workspace, pytest.raises(RuntimeFailure, match="exit code 9: err") as failed:
        Engine.find().run(job, workspace, Limits(seconds=9), 1, lambda: False)

    assert (caught.value.fault, failed.value.fault) == ("client", "client")


def test_an_engine_with_root_is_not_used(podman):
    podman.write_text("#!/bin/sh\necho false\n")

    assert Engine.find() is None
