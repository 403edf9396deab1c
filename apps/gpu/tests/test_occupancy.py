from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction

from aitbc.core import db as database
from apps.gpu.models import Device, Occupancy

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def hours(number):
    return NOON + timedelta(hours=number)


def occupy(holder, devices, start, end):
    return database.value(
        "SELECT gpu_occupy(%s, %s, %s::uuid[], %s, %s)", (holder, uuid4(), devices, hours(start), hours(end))
    )


def spans():
    found = Occupancy.objects.order_by("during", "device_id").values_list("device_id", "during")
    return [(device, during.lower, during.upper) for device, during in found]


@pytest.fixture
def cards(mike):
    first = Device.objects.get(miner_id=mike.miner_id).pk
    return [first, Device.objects.create(miner_id=mike.miner_id, uuid="second", kind="cpu", model="x", memory_mb=1).pk]


def test_spans_of_a_device_never_overlap_but_may_touch(cards):
    assert occupy(uuid4(), cards[:1], 0, 2) == "ok"
    assert occupy(uuid4(), cards, 1, 3) == "taken"  # none of them, though the second is free
    assert occupy(uuid4(), cards, 2, 3) == "ok"
    assert [(span[1], span[2]) for span in spans()] == [
        (hours(0), hours(2)), (hours(2), hours(3)), (hours(2), hours(3)),
    ]  # fmt: skip


def test_raw_sql_cannot_let_a_device_twice(cards):
    occupy(uuid4(), cards[:1], 0, 2)
    with pytest.raises(IntegrityError, match="occupancy_once"), transaction.atomic():
        Occupancy.objects.create(device_id=cards[0], holder=uuid4(), client_id=uuid4(), during=(hours(1), hours(2)))
    with pytest.raises(IntegrityError, match="occupancy_has_time"), transaction.atomic():
        Occupancy.objects.create(device_id=cards[0], holder=uuid4(), client_id=uuid4(), during=(hours(5), None))
    assert len(spans()) == 1


def test_vacating_frees_what_is_left_of_a_span_and_what_had_not_begun(cards):
    holder, other = uuid4(), uuid4()
    occupy(holder, cards[:1], 0, 4)
    occupy(holder, cards[1:], 2, 4)
    occupy(other, cards[1:], 4, 5)

    assert database.value("SELECT gpu_vacate(%s, %s)", (holder, hours(1))) == 2
    assert spans() == [(cards[0], hours(0), hours(1)), (cards[1], hours(4), hours(5))]
    assert database.value("SELECT gpu_vacate(%s, %s)", (holder, hours(1))) == 0
    assert occupy(uuid4(), cards[:1], 1, 4) == "ok"
