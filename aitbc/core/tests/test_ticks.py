"""The platform's own pulse: an outage and some time after it count for nobody (protocols 16)."""

from datetime import timedelta

import pytest

from aitbc.core import clock, ticks
from aitbc.core.models import PlatformTick

pytestmark = pytest.mark.django_db


def ago(**times):
    now = clock.database_now()
    PlatformTick.objects.update(**{name: now - timedelta(seconds=seconds) for name, seconds in times.items()})


def test_before_the_first_tick_there_is_nothing_to_excuse():
    assert not ticks.in_grace(60)


def test_ticks_without_a_gap_leave_the_beginning_as_it_was():
    ticks.tick()
    ago(at=ticks.OUTAGE_SECONDS - 1, resumed_at=500)
    before = PlatformTick.objects.get()
    ticks.tick()
    after = PlatformTick.objects.get()
    assert after.at > before.at
    assert after.resumed_at == before.resumed_at
    assert not ticks.in_grace(60)


def test_a_gap_is_an_outage_that_ends_with_the_next_tick():
    ticks.tick()
    ago(at=ticks.OUTAGE_SECONDS + 1, resumed_at=500)
    assert ticks.in_grace(60)
    ticks.tick()
    tick = PlatformTick.objects.get()
    assert tick.resumed_at == pytest.approx(tick.at, abs=timedelta(seconds=1))
    assert ticks.in_grace(60)


@pytest.mark.parametrize(("since", "grace"), [(59, True), (61, False)])
def test_the_grace_period_has_its_length(since, grace):
    ticks.tick()
    ago(resumed_at=since)
    assert ticks.in_grace(60) is grace


def test_processes_tick_for_themselves():
    ticks.tick("relay")
    ago(at=100, resumed_at=500)
    ticks.tick("other")
    assert (ticks.in_grace(60, "relay"), ticks.in_grace(0, "other")) == (True, False)
    assert PlatformTick.objects.count() == 2
