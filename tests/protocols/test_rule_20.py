"""Rule 20: time is the platform's clock, memory is filled in order and kept, all devices are asked at once."""

from datetime import timedelta

import pytest
from django.db.models import F

from aitbc.accounts import parameters
from apps.gpu.models import Challenge, Device
from apps.gpu.services import challenges
from apps.gpu.tests.steps import read
from apps.gpu.tests.test_challenges import (  # noqa: F401 - fixtures, and a test collected here too
    always,
    cast_miner,
    issued,
    mike,
    prove,
    small,
    test_a_commitment_after_the_deadline_fails,
    test_a_draw_asks_all_devices_of_an_owner_at_once_also_while_they_work,
    test_devices_are_grouped_by_owner_signing_key_and_region,
)
from apps.gpu.tests.test_memory_proof import (  # noqa: F401 - collected here too
    test_a_plan_fills_most_of_the_memory_and_reads_it_for_the_seconds,
    test_making_the_memory_again_takes_many_times_as_long_as_reading_it,
    test_rows_of_ones_own_making_do_not_follow_from_each_other,
)


def test_the_speed_is_the_work_over_the_platforms_time(mike, issued, tmp_path):  # noqa: F811
    Challenge.objects.update(issued_at=F("issued_at") - timedelta(seconds=20))

    _, opened = prove(mike, issued, tmp_path)

    row = Challenge.objects.get()
    operations = 2 * row.n**3 * row.rounds * row.steps
    assert read(opened)["tflops"] < operations / 20 / 1e12
    assert Device.objects.get().tflops == pytest.approx(
        operations / (row.committed_at - row.issued_at).total_seconds() / 1e12
    )


def test_all_devices_of_a_miner_are_challenged_in_the_same_moment(mike, small):  # noqa: F811
    owner = cast_miner(mike)
    owner.devices.create(uuid="CPU-b", kind="cpu", model="Test CPU", memory_mb=1, claimed_tflops=2e-7)

    challenges.issue_missing(owner)

    first, second = Challenge.objects.order_by("issued_at")
    assert second.issued_at - first.issued_at < timedelta(seconds=2)
    assert first.seed != second.seed
    assert first.device_id != second.device_id


def test_the_work_asked_for_takes_the_declared_device_twenty_seconds():
    definition = {d.name: d for d in parameters.DEFINITIONS}["challenge_seconds"]

    assert definition.default == 20
