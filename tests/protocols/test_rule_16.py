"""Rule 16: the platform's own outages count for nobody, and mass silence is more likely our fault."""

from apps.gpu.tests.test_miners import (  # noqa: F401 - collected here too
    test_after_an_outage_of_the_platform_everybody_gets_a_full_lease_of_grace,
    test_mass_silence_suspends_expiry_for_a_minute_and_not_for_ever,
    test_more_than_a_fifth_falling_silent_at_once_suspends_expiry,
    test_the_platforms_own_ticks_are_no_outage,
)
from apps.gpu.tests.test_reliability import (  # noqa: F401 - the score leaves outages out as well
    test_an_attempt_that_ran_into_an_outage_is_left_out,
    test_an_outage_is_kept_when_the_relay_ticks_again,
    test_an_outage_of_the_platform_is_nobodys_absence,
)


def test_the_relay_writes_the_tick(db):
    from aitbc.core import ticks
    from aitbc.core.models import PlatformTick

    ticks.tick()

    row = PlatformTick.objects.get()
    assert row.process == "relay"
    assert ticks.EVERY_SECONDS < ticks.OUTAGE_SECONDS
