"""The parts of the demonstration that need no platform: a check that cannot fail would prove nothing."""

import base64
import hashlib
import json
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from aitbc.core.errors import Conflict
from aitbc.demo import offline, orders, pollers, stage
from aitbc.demo.failure import Failed, require, wait_for
from aitbc.demo.miners import family, survivors
from aitbc.demo.opening import ask
from aitbc.demo.pollers import Contest
from aitbc.demo.report import Report, Step, summary
from aitbc.demo.state import State
from aitbc.stack import StackError
from apps.gpu import demo, runtimes, statements
from apps.gpu.runtimes.contract import Context


def run(order: orders.Order, folder: Path):
    """The order's output from the runtime that a miner would use."""
    artifacts = {}
    for content in order.artifacts:
        sha256 = hashlib.sha256(content).hexdigest()
        artifacts[sha256] = folder / sha256
        artifacts[sha256].write_bytes(content)
    return runtimes.find(order.kind).run(order.input, Context(folder, artifacts))[0]


# -- checks of outputs -------------------------------------------------------------------------
@pytest.mark.parametrize("n", [8, 100, 256])
def test_a_right_product_passes_and_the_product_of_other_matrices_does_not(tmp_path, n):
    order, other = orders.matmul(region="here", n=n), orders.matmul(region="here", n=n)

    assert order.check(run(order, tmp_path)) is None
    assert "have the root" in order.check(run(other, tmp_path))


def test_a_right_inference_passes_and_a_wrong_one_does_not(tmp_path):
    order = orders.onnx(region="here")
    output = run(order, tmp_path)

    assert order.check(output) is None
    output["outputs"]["probabilities"]["data"][5] += 1e-3
    assert "away from NumPy's" in order.check(output)


def test_an_inference_of_another_shape_or_without_numbers_is_wrong(tmp_path):
    order = orders.onnx(region="here")
    output = run(order, tmp_path)
    found = output["outputs"]["probabilities"]

    assert order.check({"outputs": {"probabilities": found | {"shape": [8, 4]}}}) is not None
    nothing = [float("nan")] * len(found["data"])
    assert order.check({"outputs": {"probabilities": found | {"data": nothing}}}) is not None


@pytest.mark.parametrize("number", range(len(orders.SENTENCES)))
def test_every_picture_of_the_demonstration_is_read_right(tmp_path, number):
    order = orders.ocr(number, region="here")

    assert order.check(run(order, tmp_path)) is None


@pytest.mark.parametrize("lines", [[], ["Invoice 2718"], ["Invoice 2718", "Amount due 43"]])
def test_other_words_than_those_in_the_picture_are_wrong(lines):
    output = {"lines": [{"text": text} for text in lines]}

    assert orders.check_ocr(("Invoice 2718", "Amount due 42"), output) is not None


def test_every_second_picture_travels_as_an_artifact():
    inline, uploaded = orders.ocr(0, region="here"), orders.ocr(1, region="here")

    assert base64.b64decode(inline.input["image"]) == demo.picture(*orders.SENTENCES[0])
    assert inline.artifacts == ()
    assert uploaded.input["image"] == hashlib.sha256(uploaded.artifacts[0]).hexdigest()


def test_the_three_kinds_come_in_equal_numbers_under_ids_of_their_own():
    wanted = orders.mixed(4, region="here")

    assert Counter(order.kind for order in wanted) == {"bench.matmul": 4, "onnx.infer": 4, "vision.ocr": 4}
    assert len({order.body["id"] for order in wanted}) == 12
    assert {order.body["constraints"]["region"] for order in wanted} == {"here"}


def test_a_receipt_must_commit_to_this_input_and_this_output():
    salt, given, output = bytes(range(32)), {"n": 8}, {"root": "0x00"}
    commitments = {
        "job": "a job",
        "input_commitment": "0x" + statements.commitment(salt=salt, value=given).hex(),
        "output_commitment": "0x" + statements.commitment(salt=salt, value=output).hex(),
    }
    receipt = {"salt": "0x" + salt.hex(), "statement": commitments}

    assert orders.check_commitments(receipt, given=given, output=output) is None
    assert "input_commitment" in orders.check_commitments(receipt, given={"n": 9}, output=output)
    assert "output_commitment" in orders.check_commitments(receipt, given=given, output={})


# -- who got what ------------------------------------------------------------------------------
def played(jobs: str, leased: str, done: str) -> Contest:
    return Contest(set(jobs), leased=list(leased), done=list(done))


@pytest.mark.parametrize(
    ("contest", "wrong"),
    [
        (played("abc", "abcb", "abc"), "1 jobs were leased more than once, for example ['b']"),
        (played("abc", "abcx", "abc"), "1 leased jobs were not submitted here"),
        (played("abc", "abc", "abb"), "1 of 3 jobs were not done"),
    ],
)
def test_each_job_leased_and_done_once_is_the_only_good_outcome(contest, wrong):
    played("abc", "abc", "abc").require_each_once()
    with pytest.raises(Failed, match=re.escape(wrong)):
        contest.require_each_once()


class Player:
    """A seller with a queue of jobs of its own, who may refuse to go on."""

    def __init__(self, jobs: str, refusal: Exception | None = None) -> None:
        self.jobs, self.refusal = list(jobs), refusal

    def poll(self, contest: Contest, context: Context) -> bool:
        if self.refusal:
            raise self.refusal
        if not self.jobs:
            return False
        contest.leased.append(self.jobs[0])
        contest.done.append(self.jobs.pop(0))
        return True


def contend(folder: Path, *players: Player, seconds: float = 30) -> Contest:
    context = Context(folder, {})
    return pollers.contend(
        players, jobs="abcd", connections=2, context=context, seconds=seconds, tell=lambda line: None
    )


def test_the_contest_is_over_with_its_last_job(tmp_path):
    contest = contend(tmp_path, Player("ab"), Player("cd"))

    contest.require_each_once()
    assert sorted(contest.done) == ["a", "b", "c", "d"]
    assert contest.seconds < 10


def test_a_poller_that_fails_ends_the_contest(tmp_path):
    with pytest.raises(Conflict, match="lost"):
        contend(tmp_path, Player("ab"), Player("cd", refusal=Conflict("lease.lost", "lost")))


def test_a_contest_that_takes_too_long_is_a_failure(tmp_path):
    with pytest.raises(Failed, match="not done in time"):
        contend(tmp_path, Player("ab"), Player("c"), seconds=0)


# -- the report --------------------------------------------------------------------------------
@pytest.fixture
def report() -> Report:
    return Report([Step("first"), Step("second")])


def test_a_report_is_good_only_when_every_planned_step_held(report):
    said: list[str] = []
    assert not report.ok

    with report.step("first", tell=said.append) as step:
        step.detail = "seen"
    assert not report.ok
    with report.step("second", tell=said.append):
        pass

    assert report.ok
    assert said[0] == "== first"
    assert said[1].startswith("ok     first (0.0 s): seen")


def test_a_report_without_steps_is_not_good():
    assert Report([]).ok is False


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (Failed("it was 3", log="/var/x.log"), "it was 3; read /var/x.log"),
        (KeyboardInterrupt("stopped"), "KeyboardInterrupt: stopped"),
        (KeyError("id"), "KeyError: 'id'"),
    ],
)
def test_a_step_that_fails_says_why_and_is_not_swallowed(report, error, detail):
    with pytest.raises(type(error)), report.step("first", tell=lambda line: None):
        raise error

    first, second = report.steps
    assert (first.ok, first.detail) == (False, detail)
    assert (second.ok, second.detail) == (False, "not reached")


def test_the_last_line_and_the_file_tell_the_same(report, tmp_path):
    for name in ("first", "second"):
        with report.step(name, tell=lambda line: None):
            pass
    report.jobs, report.receipts_verified, report.requeued = 31, 30, 1
    report.write(tmp_path / "report.json")

    last = json.loads(summary(report)[-1])
    written = json.loads((tmp_path / "report.json").read_text())

    assert last["ok"] is True
    assert '"ok": true' in summary(report)[-1]
    assert all(written[name] == last[name] for name in ("ok", "jobs", "receipts_verified", "requeued"))
    assert [set(step) for step in written["steps"]] == [{"name", "ok", "seconds", "detail"}] * 2
    assert {"settlement", "ledger_audit", "reserves"} <= written.keys()


def test_a_condition_that_does_not_hold_is_a_failure():
    require(True, "never said")
    with pytest.raises(Failed, match="two are missing"):
        require([], "two are missing")


def test_waiting_returns_what_is_found_and_fails_in_time():
    answers = iter([None, None, "found"])

    assert wait_for(lambda: next(answers), seconds=5, what="an answer", pause=0) == "found"
    with pytest.raises(Failed, match="an answer: not within 0 s"):
        wait_for(lambda: None, seconds=0, what="an answer", pause=0)


# -- what is kept ------------------------------------------------------------------------------
def test_keys_are_kept_for_the_next_run_and_closed_to_others(tmp_path):
    path = tmp_path / "demo" / "state.json"
    state = State.load(path)
    state.people["client"] = {"email": "a@example.com", "id": "an id", "key": "ait_key"}
    state.wallets["provider-1"] = "ab" * 32
    state.parameters = {"lease_seconds": 60}

    state.save()

    assert State.load(path) == state
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# -- receipts as files -------------------------------------------------------------------------
def test_each_changed_copy_differs_in_one_byte():
    content = b'{"a":1}'

    copies = list(offline.every_byte_changed(content))

    assert len(copies) == len(content)
    for place, copy in enumerate(copies):
        assert [i for i in range(len(content)) if copy[i] != content[i]] == [place]


def test_receipt_files_hold_exactly_the_bytes_and_only_of_this_run(tmp_path):
    folder = tmp_path / "receipts"
    offline.write_all(folder, {"old": b"{}"})

    files = offline.write_all(folder, {"a": b'{"x":1}', "b": b'{"x":2}'})

    assert [file.name for file in files] == ["a.json", "b.json"]
    assert sorted(file.name for file in folder.iterdir()) == ["a.json", "b.json"]
    assert files[1].read_bytes() == b'{"x":2}'


# -- processes ---------------------------------------------------------------------------------
def test_a_command_that_fails_is_reported_in_its_own_words():
    with pytest.raises(StackError, match=r"(?s)manage.py set_parameters failed.*NAME=VALUE"):
        ask("set_parameters", "lease_seconds")


def test_processes_that_go_on_are_named_and_ended_ones_are_not():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        found = family(child.pid)
        assert found == [psutil.Process(child.pid)]
        assert survivors(found, seconds=0.1)[0].startswith(f"{child.pid} ")
    finally:
        child.kill()
        child.wait()

    assert survivors(found, seconds=1) == []
    assert family(child.pid) == []


@pytest.mark.parametrize(("allowed", "daemons", "worker"), [({2, 5}, [2, 5], "2,5"), ({1, 2, 3, 7}, [1, 2], "7")])
def test_two_daemons_get_a_processor_each_and_the_worker_what_is_left(monkeypatch, allowed, daemons, worker):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: allowed)

    assert stage.processors() == daemons
    assert stage.worker_processors() == worker


def test_one_processor_is_too_few_for_two_miners(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})

    with pytest.raises(Failed, match="two processors"):
        stage.processors()
