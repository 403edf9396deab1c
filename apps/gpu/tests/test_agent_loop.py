import contextlib
import hashlib
import itertools
import json
import threading
import time

import pytest

from aitbc.accounts import parameters
from aitbc.accounts.models import Role
from aitbc.chain.signing import digest, new_private_key, recover
from aitbc.core.errors import Conflict, Forbidden, NotFound, Unavailable
from aitbc.core.testing import cast
from apps.gpu import demo, statements
from apps.gpu.agent import challenge, loop, memory, transport, work
from apps.gpu.agent.detect import detect
from apps.gpu.agent.identity import load_identity
from apps.gpu.agent.loop import Agent, Config, kinds_to_offer
from apps.gpu.agent.printed import Printed
from apps.gpu.agent.sandbox import Sandbox
from apps.gpu.models import Job, Miner
from apps.gpu.tests.serving import free_port, serving
from apps.gpu.tests.steps import submit

MINER = "01890a5d-ac96-774b-bcce-b302099a8057"
DEVICE = "01890a5d-ac96-774b-bcce-b302099a8058"
CHAIN_ID = 31337
MATMUL = {"n": 64, "seed": 7, "dtype": "float32"}
LONG = {"n": 2048, "seed": 7, "dtype": "float32", "repeats": 1000}


class Platform:
    """The platform's side in memory: it checks what it is sent as the real one does, and can fail."""

    def __init__(self):
        self.calls, self.queue, self.held, self.done = [], [], {}, {}
        self.artifacts, self.cancel, self.outages, self.lost = {}, [], [], set()
        self.sequence, self.head, self.address, self.challenge = 0, statements.GENESIS, None, None
        self.forgotten = self.lose_answer = False
        self.patience = 30.0
        self.verdict = self.wait_url = None
        self.ordered = []
        self.woken = threading.Event()
        self.polled = []
        self.lock = threading.Lock()

    # -- what tests do -------------------------------------------------------------------------
    def submit(self, kind, given, *, seconds=30, artifact=None):
        number = len(self.queue) + len(self.held) + len(self.done)
        job = {
            "id": f"01890a5d-ac96-774b-bcce-{number:012d}",
            "kind": kind,
            "input": given,
            "input_artifact": artifact,
            "client": "0x" + "11" * 32,
            "miner": MINER,
            "attempt": 1,
            "salt": "0x" + "22" * 32,
            "unit_price": {"amount": "0.001", "asset": "AIT"},
            "lease_token": f"01890a5d-0000-774b-bcce-{number:012d}",
            "max_seconds": seconds,
            "max_units": seconds * 1000,
        }
        self.queue.append(job)
        return job

    def store(self, content):
        sha256 = hashlib.sha256(content).hexdigest()
        self.artifacts[sha256] = content
        return sha256

    def until(self, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not reached; calls were {self.calls}"
            time.sleep(0.01)

    def names(self):
        return [name for name, *_ in self.calls]

    def _hear(self, name, *details):
        with self.lock:
            self.calls.append((name, *details))
            if self.outages and self.outages[0] == name:
                self.outages.pop(0)
                raise Unavailable("platform.unreachable", "the platform does not answer")

    def _lease(self, job, token):
        if job in self.lost or job not in self.held or self.held[job]["lease_token"] != token:
            raise Conflict("lease.lost", "this lease is not yours any more")

    # -- Transport -----------------------------------------------------------------------------
    def nonce(self):
        self._hear("nonce")
        return {"nonce": "0x" + "33" * 32, "prefix": "abc", "chain_id": CHAIN_ID}

    def register(self, profile):
        self._hear("register", profile)
        values = {"prefix": "abc", "nonce": profile["nonce"], "address": profile["address"]}
        signed = digest(statements.domain(CHAIN_ID), statements.MINER_REGISTRATION, values)
        assert recover(signed, profile["proof"]) == profile["address"]
        self.address, self.forgotten = profile["address"], False
        return {
            "id": MINER,
            "state": "online",
            "devices": [{"id": DEVICE, "uuid": device["uuid"]} for device in profile["devices"]],
            "heartbeat_seconds": 0.1,
            "sequence": self.sequence,
            "head": "0x" + self.head.hex(),
            "challenge": self.challenge,
            "chain_id": CHAIN_ID,
            "wait_url": self.wait_url,
        }

    def heartbeat(self, beat):
        self._hear("heartbeat", beat)
        if self.forgotten:
            raise NotFound("miner.unregistered", "this key has not registered a miner")
        expected = {"sequence": self.sequence + 1, "previous": "0x" + self.head.hex()}
        if {name: beat[name] for name in expected} != expected:
            raise Conflict("heartbeat.out_of_order", "does not follow", expected=expected)
        values = statements.heartbeat_values(
            miner=MINER,
            sequence=beat["sequence"],
            previous=self.head,
            telemetry=json.loads(json.dumps(beat["telemetry"])),
            running=beat["running"],
        )
        if "signature" in beat:
            signed = digest(statements.domain(CHAIN_ID), statements.HEARTBEAT, values)
            assert recover(signed, beat["signature"]) == self.address
        self.sequence, self.head = beat["sequence"], statements.HEARTBEAT.hash(values)
        if self.lose_answer:
            self.lose_answer = False
            raise Unavailable("platform.unreachable", "the answer got lost")
        return {"state": "online", "cancel": list(self.cancel), "challenge": self.challenge}

    def poll(self, *, max_jobs, wait_seconds, kinds):
        self._hear("poll")
        if self.forgotten:
            raise NotFound("miner.unregistered", "this key has not registered a miner")
        self.polled.append((max_jobs, len(self.held)))
        given, self.queue = self.queue[:max_jobs], self.queue[max_jobs:]
        self.held |= {job["id"]: job for job in given}
        if not given:
            time.sleep(0.02)
        return given

    def wait(self, url, *, seconds):
        self._hear("wait", url, seconds)
        self.woken.wait(5)
        self.woken.clear()

    def start(self, job, *, lease_token):
        self._hear("start", job)
        self._lease(job, lease_token)

    def progress(self, job, body):
        self._hear("progress", job, body)
        self._lease(job, body["lease_token"])

    def result(self, job, body):
        self._hear("result", job, body)
        self._lease(job, body["lease_token"])
        self.done[job] = self._signed_by_miner(self.held.pop(job), body)
        return {}

    def _signed_by_miner(self, job, body):
        salt = statements.hex32(job["salt"])
        if "output_artifact" in body:
            committed = statements.artifact_commitment(salt=salt, sha256=body["output_artifact"])
        else:
            committed = statements.commitment(salt=salt, value=json.loads(json.dumps(body["output"])))
        statement = work.statement_of(job, output_commitment=committed)
        signed = digest(statements.domain(CHAIN_ID), statements.WORK_STATEMENT, statement.values())
        assert recover(signed, body["statement_signature"]) == self.address
        return body

    def fail(self, job, body):
        self._hear("fail", job, body)
        self._lease(job, body["lease_token"])
        del self.held[job]

    def challenge_commit(self, identifier, roots):
        self._hear("challenge_commit", identifier)
        self.spec = challenge.Spec.from_json(self.challenge["spec"])
        assert len(roots) == self.spec.steps
        self.roots = roots
        return {"nonce": "0x" + "44" * 32, "rows": challenge.places(b"\x44" * 32, self.spec)}

    def challenge_open(self, identifier, rows):
        wanted = challenge.places(b"\x44" * 32, self.spec)
        reason = challenge.verify_rows(self.spec, roots=self.roots, rows=rows, wanted=wanted)
        self.challenge, self.verdict = None, reason or "passed"
        return {"passed": reason is None, "tflops": 0.1}

    def challenge_memory(self, identifier, said):
        self._hear("challenge_memory", identifier)
        if "rows" in said:
            spec = challenge.Spec(**self.challenge["spec"] | {"seed": bytes.fromhex(self.challenge["spec"]["seed"])})
            reason = memory.verify(spec, keys=self.keys, draw="0x" + "55" * 32, rows=said["rows"])
            self.challenge, self.verdict = None, reason or "passed"
            return {"nonce": None, "verdict": {"passed": reason is None, "tflops": None}}
        nonce = "0x" + ("44" if len(said["roots"]) == 1 else "55") * 32
        self.keys = [*said["roots"], nonce] if len(said["roots"]) == 1 else [*self.keys, *said["roots"]]
        return {"nonce": nonce, "verdict": None}

    def get_artifact(self, sha256, path):
        self._hear("get_artifact", sha256)
        if sha256 not in self.artifacts:
            raise NotFound("artifact.unknown", f"you have no artifact {sha256}")
        path.write_bytes(self.artifacts[sha256])

    def put_artifact(self, content):
        self._hear("put_artifact")
        return self.store(content)

    def orders(self):
        self._hear("orders")
        return [order for order in self.ordered if "start_order" not in order]

    def start_order(self, order):
        self._hear("start_order", order)
        next(row for row in self.ordered if row["id"] == order)["start_order"] = True

    def drain(self):
        self._hear("drain")

    def sign_off(self):
        self._hear("sign_off")

    def close(self):
        self._hear("close")


@pytest.fixture(scope="module")
def sandbox():
    with contextlib.closing(Sandbox(tier="process", threads=1)) as made:
        yield made


@pytest.fixture(scope="module")
def measured():
    return {}


@pytest.fixture(autouse=True)
def measured_once(monkeypatch, measured):
    """The benchmark really runs, for the first agent of this module."""
    measure = Agent._measure

    def remember(agent):
        agent._measured = measured
        if not measured:
            measure(agent)

    monkeypatch.setattr(loop, "BENCHMARK_SECONDS", 0.01)
    monkeypatch.setattr(Agent, "_measure", remember)


@pytest.fixture
def platform():
    return Platform()


@pytest.fixture
def make(platform, sandbox, tmp_path):
    def make(**changes):
        config = Config(**{"name": "m", "region": "eu", "price": "0.001", "allow_client_code": True, **changes})
        identity = load_identity(tmp_path / "signing.key")
        return Agent(
            transport=platform, identity=identity, sandbox=sandbox, devices=detect(cpus=(0,)).devices,
            config=config, prefix="abc",
        )  # fmt: skip

    return make


@pytest.fixture
def running(make):
    """Starts an agent in a thread; stops it, and raises what it raised, at the end."""
    started = []

    def start(**changes):
        agent, outcome = make(**changes), {}

        def run():
            try:
                outcome["summary"] = agent.run()
            except BaseException as error:
                outcome["error"] = error

        thread = threading.Thread(target=run)
        thread.start()
        started.append((agent, thread, outcome))
        return agent

    yield start
    for agent, thread, outcome in started:
        agent.stop()
        thread.join(timeout=20)
        assert not thread.is_alive()
        if "error" in outcome:
            raise outcome["error"]


def test_a_miner_registers_what_it_has_under_its_own_address(make, platform):
    platform.submit("bench.matmul", MATMUL)

    summary = make(slots=2, models=("m1",)).run(once=True)

    profile = next(details[0] for name, *details in platform.calls if name == "register")
    assert summary.miner == MINER
    assert profile["kinds"] == ["audio.vad", "bench.matmul", "onnx.infer", "vision.ocr"]
    assert (profile["sandbox"], profile["concurrency"], profile["models"]) == ("process", 2, ["m1"])
    (device,) = profile["devices"]
    assert device["kind"] == "cpu"
    assert device["tflops"] > 0
    assert device["memory_gbps"] > 0


def test_a_job_is_run_and_its_statement_signed(make, platform):
    job = platform.submit("bench.matmul", MATMUL)

    summary = make().run(once=True)

    body = platform.done[job["id"]]
    assert body["output"]["n"] == 64
    assert body["metrics"]["sandbox"]["tier"] == "process"
    assert body["claimed_ms"] == body["metrics"]["wall_ms"] > 0
    assert dict(summary.jobs) == {"completed": 1}
    told = [n for n in platform.names() if n not in ("heartbeat", "drain")]
    assert told == ["nonce", "register", "poll", "start", "progress", "result", "sign_off"]


def test_artifacts_are_fetched_before_the_clock_starts(make, platform):
    model = platform.store(demo.MODEL_PATH.read_bytes())
    x = {"dtype": "float32", "shape": [1, 16], "data": [0.5] * 16}
    job = platform.submit("onnx.infer", {"model": model, "inputs": {"x": x}})

    make().run(once=True)

    names = platform.names()
    assert names.index("get_artifact") < names.index("start") < names.index("result")
    assert platform.done[job["id"]]["output"]["outputs"]["probabilities"]["shape"] == [1, 8]


def test_a_whole_input_may_be_an_artifact_and_an_output_too(make, platform, monkeypatch):
    monkeypatch.setattr(work, "INLINE_BYTES", 50)
    given = platform.store(json.dumps(MATMUL).encode())
    job = platform.submit("bench.matmul", None, artifact=given)

    make().run(once=True)

    body = platform.done[job["id"]]
    assert "output" not in body
    assert json.loads(platform.artifacts[body["output_artifact"]])["n"] == 64


@pytest.mark.parametrize(
    ("kind", "given", "code", "reason"),
    [
        ("no.such", {}, "runtime.unknown", "no runtime for 'no.such'"),
        ("bench.matmul", {"n": 64}, "runtime.invalid_input", "'seed' is a required property"),
        ("onnx.infer", {"model": "ab" * 32, "inputs": {}}, "runtime.invalid_input", "you have no artifact"),
    ],
)
def test_a_job_that_cannot_run_is_failed_with_its_reason_and_never_started(make, platform, kind, given, code, reason):
    job = platform.submit(kind, given)

    summary = make().run(once=True)

    ((_, body),) = [details for name, *details in platform.calls if name == "fail"]
    assert body["code"] == code
    assert reason in body["message"]
    assert body["retryable"] == (code == "runtime.unknown")
    assert "start" not in platform.names()
    assert job["id"] not in platform.held
    assert dict(summary.jobs) == {"failed": 1}


def test_a_job_over_its_time_is_killed_and_failed(make, platform):
    platform.submit("bench.matmul", LONG, seconds=0.3)

    make().run(once=True)

    ((_, body),) = [details for name, *details in platform.calls if name == "fail"]
    assert (body["code"], body["retryable"]) == ("runtime.timeout", False)


def test_slots_are_used_and_never_exceeded(running, platform):
    for _ in range(6):
        platform.submit("bench.matmul", MATMUL)

    running(slots=2)
    platform.until(lambda: len(platform.done) == 6)

    assert max(asked for asked, _ in platform.polled) == 2
    assert all(asked + held <= 2 for asked, held in platform.polled)


def test_a_job_that_the_platform_cancels_stops_and_reports_nothing(running, platform):
    job = platform.submit("bench.matmul", LONG)
    agent = running()
    platform.until(lambda: "start" in platform.names())

    platform.cancel = [job["id"]]
    platform.until(lambda: agent.summary.jobs["canceled"] == 1)

    assert not {"result", "fail"} & set(platform.names())


def test_a_lost_lease_changes_nothing_and_the_miner_goes_on(running, platform):
    lost, next_job = platform.submit("bench.matmul", MATMUL), platform.submit("bench.matmul", MATMUL)
    platform.lost.add(lost["id"])

    agent = running()
    platform.until(lambda: next_job["id"] in platform.done)

    assert lost["id"] not in platform.done
    assert "fail" not in platform.names()
    assert agent.summary.jobs["lost"] == 1


def test_an_outage_at_any_moment_is_waited_out(running, platform):
    platform.outages = ["nonce", "register", "poll", "result", "result"]
    job = platform.submit("bench.matmul", MATMUL)

    running()
    platform.until(lambda: job["id"] in platform.done)

    assert platform.outages == []
    assert platform.names().count("result") == 3


def test_an_idle_miner_waits_where_it_is_told_and_takes_work_at_once(running, platform):
    platform.wait_url = "http://stream.test/v1/miners/wait"
    running()
    platform.until(lambda: "wait" in platform.names())

    job = platform.submit("bench.matmul", MATMUL)
    begun = time.monotonic()
    platform.woken.set()
    platform.until(lambda: job["id"] in platform.held or job["id"] in platform.done)

    assert time.monotonic() - begun < 0.9
    assert ("wait", platform.wait_url, 20.0) in platform.calls
    platform.until(lambda: job["id"] in platform.done)
    platform.woken.set()


def test_without_a_place_to_wait_the_miner_polls_in_pauses(running, platform):
    platform.wait_url = "http://stream.test/v1/miners/wait"
    platform.outages = ["wait"]
    running()
    platform.until(lambda: not platform.outages)

    job = platform.submit("bench.matmul", MATMUL)
    platform.until(lambda: job["id"] in platform.done)
    platform.woken.set()


def test_stopping_finishes_the_job_at_hand_then_signs_off(running, platform):
    job = platform.submit("bench.matmul", {**MATMUL, "n": 1024, "repeats": 20})
    agent = running()
    platform.until(lambda: "start" in platform.names())
    platform.submit("bench.matmul", MATMUL)

    agent.stop()
    platform.until(lambda: "sign_off" in platform.names())

    assert list(platform.done) == [job["id"]]
    assert [n for n in platform.names() if n in ("drain", "result", "sign_off")] == ["drain", "result", "sign_off"]


def test_what_is_not_done_in_time_is_handed_back_with_words(running, platform):
    agent = running(drain_seconds=0.1)
    job = platform.submit("bench.matmul", LONG)
    platform.until(lambda: agent._leases and platform.names().count("start"))

    agent.stop()

    platform.until(lambda: "sign_off" in platform.names())
    (failed,) = [details for name, *details in platform.calls if name == "fail"]
    assert failed[0] == job["id"]
    assert (failed[1]["code"], failed[1]["retryable"]) == ("miner.stopped", True)
    assert failed[1]["message"] == "the provider stopped this miner"
    assert platform.names()[-1] == "sign_off"
    assert not platform.held


def test_a_second_stop_does_not_wait(running, platform):
    agent = running(drain_seconds=3600)
    platform.submit("bench.matmul", LONG)
    platform.until(lambda: platform.names().count("start"))
    agent.stop()
    platform.until(lambda: "drain" in platform.names())
    assert not platform.names().count("fail")

    begun = time.monotonic()
    agent.stop()
    platform.until(lambda: "sign_off" in platform.names())

    assert time.monotonic() - begun < 5
    assert platform.names().count("fail") == 1


def test_a_result_that_could_not_be_delivered_is_delivered_by_the_next_start(
    make, running, platform, tmp_path, monkeypatch
):
    monkeypatch.setattr(work, "DELIVERY_TRIES", 1)
    outbox = tmp_path / "undelivered"
    platform.outages = ["result"]
    job = platform.submit("bench.matmul", MATMUL)
    first = make(undelivered=outbox)
    first.run(once=True)
    assert first.summary.jobs == {"lost": 1}
    assert [path.stem for path in outbox.iterdir()] == [job["id"]]

    agent = running(undelivered=outbox)
    platform.until(lambda: job["id"] in platform.done)  # which checks the lease and the signature

    platform.until(lambda: agent.summary.jobs["completed"] == 1 and not agent._leases)
    assert list(outbox.iterdir()) == []


def test_a_kept_result_keeps_its_lease_alive_and_is_dropped_once_that_is_lost(running, platform, tmp_path):
    job = platform.submit("bench.matmul", MATMUL)
    (tmp_path / f"{job['id']}.json").write_text(json.dumps({"job": job, "body": {"lease_token": job["lease_token"]}}))
    platform.queue.clear()  # the platform gave it to another miner meanwhile

    agent = running(undelivered=tmp_path)

    platform.until(lambda: agent.summary.jobs["lost"] == 1)
    assert not (tmp_path / f"{job['id']}.json").exists()
    assert platform.names().count("result") == 1


def test_a_refused_registration_ends_the_miner(make, platform, monkeypatch):
    def refuse(profile):
        raise Forbidden("auth.scope", "this key has no scope miner")

    monkeypatch.setattr(platform, "register", refuse)

    with pytest.raises(Forbidden):
        make().run(once=True)


def test_a_revoked_key_ends_the_miner(make, platform, monkeypatch):
    def refuse(**_):
        raise Forbidden("auth.required", "this key was revoked")

    monkeypatch.setattr(platform, "poll", refuse)

    with pytest.raises(Forbidden):
        make().run()


def test_heartbeats_are_chained_and_the_first_is_signed(running, platform):
    running()
    platform.until(lambda: platform.sequence >= 4)

    beats = [details[0] for name, *details in platform.calls if name == "heartbeat"]
    assert [beat["sequence"] for beat in beats[:4]] == [1, 2, 3, 4]
    assert beats[0]["previous"] == "0x" + "00" * 32
    assert ["signature" in beat for beat in beats[:4]] == [True, False, False, False]
    assert beats[1]["telemetry"][0]["device_id"] == DEVICE
    assert set(beats[1]["telemetry"][0]) == {
        "device_id", "utilization", "memory_used_mb", "temperature_c", "power_w", "latency_ms",
    }  # fmt: skip
    assert beats[1]["telemetry"][0]["latency_ms"] >= 0
    assert "latency_ms" not in beats[0]["telemetry"][0]  # there was no beat before it


def test_a_heartbeat_whose_answer_got_lost_is_not_sent_twice(running, platform):
    running()
    platform.until(lambda: platform.sequence >= 2)

    platform.lose_answer = True
    before = platform.sequence
    platform.until(lambda: platform.sequence >= before + 3)

    assert platform.names().count("register") == 1


def test_running_jobs_are_named_in_heartbeats(running, platform):
    job = platform.submit("bench.matmul", LONG, seconds=3)
    running()

    platform.until(lambda: any(d[0]["running"] == [job["id"]] for n, *d in platform.calls if n == "heartbeat"))

    platform.cancel = [job["id"]]


def test_an_order_is_started_when_its_time_has_come_and_tried_again_after_an_outage(running, platform):
    platform.outages = ["start_order"]
    platform.ordered = [
        {"id": "now", "starts_at": "2020-01-01T00:00:00Z"},
        {"id": "later", "starts_at": "2120-01-01T00:00:00Z"},
    ]

    running()
    platform.until(lambda: platform.ordered[0].get("start_order"))
    seen = platform.names().count("orders")
    platform.until(lambda: platform.names().count("orders") > seen + 1)

    assert [call for call in platform.calls if call[0] == "start_order"] == [("start_order", "now")] * 2


def test_a_platform_that_forgot_the_miner_is_told_again(running, platform):
    running()
    platform.until(lambda: platform.sequence >= 1)

    platform.forgotten = True
    job = platform.submit("bench.matmul", MATMUL)
    platform.until(lambda: job["id"] in platform.done)

    assert platform.names().count("register") >= 2


def test_a_challenge_is_answered_while_jobs_go_on(running, platform, make):
    uuid = detect(cpus=(0,)).devices[0].uuid
    spec = challenge.Spec(b"\x05" * 32, n=256, rounds=2, steps=4)
    platform.challenge = {"id": "c1", "device": uuid, "spec": spec.as_json()}
    job = platform.submit("bench.matmul", MATMUL)

    running()
    platform.until(lambda: platform.verdict is not None and job["id"] in platform.done)

    assert platform.verdict == "passed"
    assert platform.names().count("challenge_commit") == 1


def test_what_a_job_writes_is_told_and_a_lost_lease_stops_it(make, platform, sandbox):
    agent = make()
    job = platform.submit("bench.matmul", MATMUL)
    lease = work.Lease(job)
    platform.held[job["id"]] = job
    told = {"lease_token": job["lease_token"], "message": "step 1", "logs": ["step 1"], "logs_from": 0}
    with sandbox.workspace() as folder:
        lease.printed = Printed(folder)
        (folder.folder / "log.txt").write_text("step 1\n")
        platform.outages = ["progress"]
        agent._worker.tell(lease)
        agent._worker.tell(lease)
        agent._worker.tell(lease)
        assert [d for n, *d in platform.calls if n == "progress"] == [[job["id"], told]] * 2

        platform.lost.add(job["id"])
        (folder.folder / "log.txt").write_text("step 1\nstep 2\n")
        assert not lease.canceled.is_set()
        agent._worker.tell(lease)

    _, _, last = platform.calls[-1]
    assert (last["logs"], last["logs_from"]) == (["step 2"], 1)
    assert lease.canceled.is_set()


def said(platform):
    bodies = [details[1] for name, *details in platform.calls if name == "progress"]
    assert [body["logs_from"] for body in bodies] == [
        sum(len(earlier["logs"]) for earlier in bodies[:at]) for at in range(len(bodies))
    ]
    return [line for body in bodies for line in body["logs"]]


def test_what_a_job_wrote_is_told_before_its_result(make, platform):
    platform.submit("bench.matmul", MATMUL)

    make().run(once=True)

    started, done = said(platform)
    assert started == "bench.matmul: started on cpu, threads 1"
    assert done.startswith("bench.matmul: done after ")
    names = [name for name in platform.names() if name in ("progress", "result")]
    assert names[-1] == "result"


def test_what_a_job_wrote_before_it_was_killed_is_told_once(make, platform):
    platform.submit("bench.matmul", LONG, seconds=2)

    make().run(once=True)

    assert said(platform) == ["bench.matmul: started on cpu, threads 1"]
    assert "fail" in platform.names()


def test_why_a_job_failed_is_the_last_line_of_its_log(make, platform):
    platform.submit("vision.ocr", {"image": platform.store(b"no picture")})

    make().run(once=True)

    ((_, body),) = [details for name, *details in platform.calls if name == "fail"]
    lines = said(platform)
    assert lines[0] == "vision.ocr: started on cpu, threads 1"
    assert lines[-1] == f"{body['code']}: {body['message']}"


def test_a_log_that_cannot_be_told_keeps_no_result_back(make, platform):
    platform.outages = ["progress"]
    job = platform.submit("bench.matmul", MATMUL)

    make().run(once=True)

    assert platform.outages == []
    assert platform.done[job["id"]]["output"]["n"] == 64


def test_a_clients_model_is_offered_only_where_the_sandbox_may_run_it(sandbox):
    strict = Config(name="m", region="eu", price="1")

    assert "onnx.infer" not in kinds_to_offer(strict, sandbox, "cpu")
    with pytest.raises(ValueError, match=r"onnx.infer: not offered in this sandbox"):
        kinds_to_offer(Config(name="m", region="eu", price="1", kinds=("onnx.infer",)), sandbox, "cpu")
    with pytest.raises(ValueError, match="no such job kind"):
        kinds_to_offer(Config(name="m", region="eu", price="1", kinds=("no.such",)), sandbox, "cpu")
    chosen = Config(name="m", region="eu", price="1", kinds=("bench.matmul",))
    assert kinds_to_offer(chosen, sandbox, "cpu") == ["bench.matmul"]


def test_statements_are_signed_by_the_key_in_the_state_folder(tmp_path):
    first, again = load_identity(tmp_path / "k"), load_identity(tmp_path / "k")

    assert first.address == again.address
    assert first.address != load_identity(tmp_path / "other").address
    assert new_private_key().hex() not in repr(first)


def test_a_miner_works_on_through_a_restart_of_the_platform(committed_db, sandbox, tmp_path, monkeypatch):
    """A real server goes away while a job runs and comes back: the result arrives, once, and is paid."""
    monkeypatch.setattr(transport, "pauses", lambda: itertools.repeat(0.05))
    monkeypatch.setattr(loop, "pauses", lambda: itertools.repeat(0.05))
    cast.ensure_receipt_key()
    parameters.change(name="heartbeat_seconds", value=1, by=None)
    alice, mike, port = cast.person("alice"), cast.person("mike", Role.MINER), free_port()
    cast.fund(alice.id, cast.AIT)
    reached, gone = threading.Event(), threading.Event()
    deliver = transport.HttpTransport.result

    def result(self, job, body):
        reached.set()
        assert gone.wait(10)
        return deliver(self, job, body)

    monkeypatch.setattr(transport.HttpTransport, "result", result)
    agent = Agent(
        transport=transport.HttpTransport(f"http://127.0.0.1:{port}", mike.token), sandbox=sandbox,
        identity=load_identity(tmp_path / "signing.key"), devices=detect(cpus=(0,)).devices,
        prefix=mike.principal.prefix,
        config=Config(name="m", region="eu", price="0.001", kinds=("bench.matmul",), undelivered=tmp_path / "kept"),
    )  # fmt: skip
    thread = threading.Thread(target=agent.run)
    with serving(port):
        thread.start()
        job = submit(alice, input=MATMUL)["id"]
        assert reached.wait(20)
    gone.set()
    time.sleep(0.5)  # tries that meet nobody
    assert Job.objects.get(pk=job).state == "running"
    assert len(list((tmp_path / "kept").iterdir())) == 1
    with serving(port):
        deadline = time.monotonic() + 20
        while Job.objects.get(pk=job).state != "completed":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        agent.stop()
        thread.join(20)

    assert agent.summary.jobs == {"completed": 1}
    assert list((tmp_path / "kept").iterdir()) == []
    assert Job.objects.get(pk=job).attempts == 1
    assert Miner.objects.get().state == "offline"


def test_memory_is_proved_by_a_process_that_holds_it(running, platform, make):
    """Fill, nonce, readings, nonce, rows: over files of its folder, while the process keeps the memory."""
    uuid = detect(cpus=(0,)).devices[0].uuid
    spec = challenge.Spec(b"\x05" * 32, n=64, rounds=16, steps=4)
    platform.challenge = {"id": "m1", "device": uuid, "proof": "memory", "spec": spec.as_json()}
    running()

    deadline = time.monotonic() + 30
    while platform.challenge is not None and time.monotonic() < deadline:
        time.sleep(0.02)

    assert platform.verdict == "passed"
    assert platform.names().count("challenge_memory") == 3
