"""Rule 13: billable is the least of the platform's clock, the miner's claim and the limit."""

import base64
import hashlib

import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.cast import MATMUL_OUTPUT
from apps.gpu import demo
from apps.gpu.models import Job
from apps.gpu.tests.steps import lease_of, pass_time, read, start, submit
from apps.gpu.tests.test_meter import (  # noqa: F401 - collected here too
    test_billed_time_never_exceeds_wall_time_times_slots,
    test_what_a_miner_is_paid_for_fits_into_its_slots,
)


@pytest.mark.parametrize(
    ("ran", "claimed", "escrow", "billed"),
    [
        (5, 2000, "0.01", 2000),
        (5, None, "0.01", 5000),
        (5, 9000, "0.01", 5000),
        (5, 10**12, "0.01", 5000),
        (5, 0, "0.01", 0),
        (50, None, "0.003", 3000),
        (50, 9000, "0.003", 3000),
    ],
)
def test_the_least_of_the_three_is_billed(alice, mike, ran, claimed, escrow, billed):
    lease = lease_of(alice, mike, max_price={"amount": escrow})
    start(mike, lease)
    pass_time(lease["id"], ran)

    assert mike.deliver(lease, MATMUL_OUTPUT, claimed_ms=claimed).status_code == 200

    units = Job.objects.get().units_ms
    assert billed <= units < billed + (1000 if billed == ran * 1000 else 1)


def test_queue_and_download_are_free(alice, mike, artifacts_dir):
    content = b'{"n": 8, "seed": 1, "dtype": "float32"}'
    sha256 = hashlib.sha256(content).hexdigest()
    alice.put(f"/v1/artifacts/{sha256}", content)
    job = submit(alice, input=None, input_artifact=sha256)
    pass_time(job["id"], 500)
    (lease,) = mike.poll()
    pass_time(job["id"], 50)
    start(mike, lease)
    pass_time(job["id"], 2)

    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200

    assert 2000 <= Job.objects.get().units_ms < 3000


def counted(alice, kind, given, output, **claims):
    """The units in the metrics of a result whose miner claims others."""
    miner = cast.seller("counts", kinds=(kind,))
    lease = lease_of(alice, miner, kind=kind, input=given)
    start(miner, lease)
    said = {"counted": {"unit": "page", "amount": 10**6}}
    assert miner.deliver(lease, output, metrics=said | claims).status_code == 200
    return read(alice.get(f"/v1/jobs/{lease['id']}/result"))["metrics"]


def test_audio_seconds_are_counted_from_the_bytes_of_the_recording(alice, artifacts_dir):
    content = demo.VOICE_PATH.read_bytes()
    assert alice.put(f"/v1/artifacts/{demo.VOICE_SHA256}", content).status_code == 201
    given = {"audio": demo.VOICE_SHA256, "sample_rate": 16_000}

    metrics = counted(alice, "audio.vad", given, {"segments": []}, audio_seconds=999)

    assert metrics == {"audio_seconds": 999, "counted": {"unit": "audio_second", "amount": 3.0}}


def test_a_picture_is_a_page(alice):
    given = {"image": base64.b64encode(demo.picture("x")).decode()}

    assert counted(alice, "vision.ocr", given, {"lines": []}) == {"counted": {"unit": "page", "amount": 1}}


def test_a_kind_without_a_counter_shows_no_count(alice):
    given = {"n": 8, "seed": 1, "dtype": "float32"}

    assert counted(alice, "bench.matmul", given, MATMUL_OUTPUT) == {}
