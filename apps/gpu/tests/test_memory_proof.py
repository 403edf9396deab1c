"""Proof of memory: the protocol's functions, and the exchange with the platform (protocols 20)."""

import threading
import time
from datetime import timedelta

import pytest
from django.db.models import F

from aitbc.core.testing import cast
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.agent import memory
from apps.gpu.agent.challenge import Spec
from apps.gpu.models import Challenge, Device, Miner
from apps.gpu.runtimes.contract import Context
from apps.gpu.services import challenges
from apps.gpu.tests.beats import beat
from apps.gpu.tests.steps import read, refused

SPEC = Spec(b"\x07" * 32, n=64, rounds=16, steps=4)
NONCE, DRAW = "0x" + "11" * 32, "0x" + "22" * 32


def rows_of(opened):
    """As JSON brings them."""
    return [{**row, "rows": [list(pair) for pair in row["rows"]]} for row in opened]


def exchange(spec, folder, answers):
    """Run the prover in a thread; `answers` gets what it said and its roots and gives the nonce."""
    made = {}
    prover = threading.Thread(target=lambda: made.update(rows=memory.prove(spec, Context(folder, {}))))
    prover.start()
    said = {}
    for name in ("fill", "walk"):
        while not (folder / name).exists():
            assert prover.is_alive()
            time.sleep(0.001)
        said[name] = (folder / name).read_text().split(",")
        (folder / "heard").write_text(answers(name, said[name]))
        (folder / "heard").rename(folder / f"{name}.nonce")
    prover.join()
    return said, rows_of(made["rows"])


@pytest.fixture
def proved(tmp_path):
    return exchange(SPEC, tmp_path, lambda name, roots: {"fill": NONCE, "walk": DRAW}[name])


def verdict(said, rows, *, draw=DRAW, nonce=NONCE):
    return memory.verify(SPEC, keys=[*said["fill"], nonce, *said["walk"]], draw=draw, rows=rows)


def test_an_honest_memory_passes(proved):
    said, rows = proved

    assert (len(said["fill"]), len(said["walk"]), len(rows)) == (1, SPEC.steps, memory.SAMPLES)
    assert verdict(said, rows) is None


def test_other_rows_than_those_drawn_are_refused(proved):
    said, rows = proved

    assert verdict(said, rows, draw=NONCE) == "the opened rows are not the ones asked for"
    assert verdict(said, rows[:-1]) == "the opened rows are not the ones asked for"


def test_products_with_another_nonces_vector_are_refused(proved):
    said, rows = proved

    first = [{**row, "step": 0} for row in rows]  # whose vector is the nonce's own
    assert "did not read row" in memory._fault(
        SPEC, [*said["fill"], DRAW, *said["walk"]], (0, first[0]["index"]), first[0]
    )
    spoilt = [{**row, "products": [value + 1 for value in row["products"]]} for row in rows]
    assert "did not read row" in verdict(said, spoilt)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: {**row, "rows": row["rows"][:1]},
        lambda row: {**row, "rows": [["AAAA", proof] for _, proof in row["rows"]]},
        lambda row: {**row, "rows": [[content, []] for content, _ in row["rows"]]},
        lambda row: {**row, "rows": 5},
        lambda row: {**row, "products": ["x"]},
        lambda row: {**row, "products": [2**70] * 16},
        lambda row: {"step": row["step"], "index": row["index"]},
    ],
)
def test_openings_without_sense_prove_nothing(proved, spoil):
    said, rows = proved

    assert verdict(said, [spoil(row) for row in rows]) is not None


def test_rows_of_ones_own_making_do_not_follow_from_each_other(tmp_path, monkeypatch):
    """Quicker than filling in order: every row by itself. The platform sees that none follows."""
    honest = memory._fill
    monkeypatch.setattr(memory, "_fill", lambda spec, device: memory._vector(spec.seed, 0, spec.n))
    said, rows = exchange(SPEC, tmp_path, lambda name, roots: {"fill": NONCE, "walk": DRAW}[name])
    monkeypatch.setattr(memory, "_fill", honest)

    assert "does not follow from the rows before it" in verdict(said, rows)


def test_making_the_memory_again_takes_many_times_as_long_as_reading_it():
    spec = memory.plan(seed=b"\x07" * 32, kind="cpu", memory_mb=32, gbps=1, seconds=0.1)
    filled = memory._fill(spec, "cpu")

    def least(work):
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        return min(times)

    making = least(lambda: memory._fill(spec, "cpu"))
    reading = least(lambda: memory._products(filled, bytes(32), spec.rounds))
    assert making > 5 * reading


def test_a_plan_fills_most_of_the_memory_and_reads_it_for_the_seconds():
    spec = memory.plan(seed=b"\x07" * 32, kind="cuda", memory_mb=24_564, gbps=250, seconds=5)

    assert 0.84 < spec.n * memory.WORDS * 8 / (24_564 * 2**20) <= 0.85
    assert memory.traffic(spec) / 250e9 == pytest.approx(5, rel=0.05)


# -- through the API ---------------------------------------------------------------------------
@pytest.fixture
def mike(db, monkeypatch):
    monkeypatch.setattr(memory, "_MOST_MB", {"cpu": 2})
    claim = cast.DeviceClaim(uuid="CPU-m", kind="cpu", model="Test CPU", memory_mb=64, tflops=2e-7, memory_gbps=1e-4)
    seller = cast.seller("mike", device=claim)
    Device.objects.update(verified=True, tflops=0.1)
    return seller


@pytest.fixture
def issued(mike):
    """The challenge as a heartbeat shows it."""
    assert challenges.ask_together([Device.objects.get().pk], proof="memory") == 1
    (shown,) = read(beat(mike))["challenges"]
    assert shown["proof"] == "memory"
    return shown


def path_of(shown):
    return f"/v1/miners/challenges/{shown['id']}/memory"


def prove(miner, shown, folder, *, before_walk=lambda: None, spoil=lambda rows: rows):
    spec = Spec(**shown["spec"] | {"seed": bytes.fromhex(shown["spec"]["seed"])})
    answers = []

    def answer(name, roots):
        if name == "walk":
            before_walk()
        answers.append(read(miner.post(path_of(shown), {"roots": roots})))
        return answers[-1]["nonce"] or NONCE

    _, rows = exchange(spec, folder, answer)
    if answers[-1]["verdict"] is not None:
        return answers[-1]["verdict"]
    return read(miner.post(path_of(shown), {"rows": spoil(rows)}))["verdict"]


def test_memory_is_measured_by_the_platforms_clock_from_the_nonce_to_the_roots(mike, issued, tmp_path):
    later = timedelta(seconds=3)
    back = {"committed_at": F("committed_at") - later, "deadline": F("deadline") - later}

    answer = prove(mike, issued, tmp_path, before_walk=lambda: Challenge.objects.update(**back))

    row, device = Challenge.objects.get(), Device.objects.get()
    assert (answer["passed"], row.state, device.verified) == (True, "passed", True)
    seconds = (row.walked_at - row.committed_at).total_seconds()
    assert seconds > 3
    assert (
        answer["memory_gbps"]
        == device.memory_gbps
        == pytest.approx(memory.traffic(challenges.spec_of(row)) / seconds / 1e9)
    )
    assert device.dl_score == pytest.approx(100 * (0.1 / 35.6 * device.memory_gbps / 936) ** 0.5)


def test_who_has_to_make_the_memory_again_is_late(mike, issued, tmp_path):
    """Retention: from the nonce on there is less time than another filling would take for each reading."""
    late = timedelta(seconds=60)

    answer = prove(mike, issued, tmp_path, before_walk=lambda: Challenge.objects.update(deadline=F("deadline") - late))

    assert (answer["passed"], answer["memory_gbps"]) == (False, None)
    assert answer["reason"] == "the memory was committed too long"
    device = Device.objects.get()
    assert (device.verified, device.doubt) == (False, "it failed a challenge: the memory was committed too long")


def test_false_rows_fail_the_device(mike, issued, tmp_path):
    answer = prove(mike, issued, tmp_path, spoil=lambda rows: [rows[0] | {"products": [0] * 16}, *rows[1:]])

    assert answer["passed"] is False
    assert Challenge.objects.get().state == "failed"


def test_steps_come_in_order_and_once(mike, issued, nora):
    before = snapshot()
    refused(mike.post(path_of(issued), {"rows": [{}]}), 409, "challenge.roots")
    refused(mike.post(path_of(issued), {"roots": [NONCE, NONCE]}), 409, "challenge.roots")
    refused(mike.post(path_of(issued), {"roots": ["0x00"]}), 422, "request.invalid")
    refused(nora.post(path_of(issued), {"roots": [NONCE]}), 404, "challenge.unknown")
    refused(mike.post(path_of(issued).replace("memory", "commit"), {"roots": [NONCE]}), 404, "challenge.unknown")
    assert snapshot() == before

    assert read(mike.post(path_of(issued), {"roots": [NONCE]}))["nonce"] is not None
    refused(mike.post(path_of(issued), {"roots": [NONCE]}), 409, "challenge.roots")


def test_only_an_idle_device_is_asked_to_fill_its_memory(mike, alice):
    from apps.gpu.tests.steps import lease_of

    lease_of(alice, mike)

    challenges.ask_together([Device.objects.get().pk], proof="memory")

    assert Challenge.objects.get().proof == "compute"
    assert Miner.objects.get().state == "online"
