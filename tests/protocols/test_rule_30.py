"""Rule 30: a reference to bytes comes from a full upload or an explicit grant, never from their hash."""

import pytest

from apps.gpu.models import Artifact
from apps.gpu.tests.test_artifacts import (  # noqa: F401 - collected here too
    CONTENT,
    PATH,
    test_a_client_cannot_reach_a_strangers_bytes_through_a_job,
    test_a_miner_cannot_deliver_bytes_that_it_never_uploaded,
    test_an_input_is_open_to_the_leased_miner_for_as_long_as_it_holds_the_lease,
    test_an_output_is_granted_to_the_jobs_client,
    test_an_upload_that_breaks_off_leaves_nothing,
    test_claiming_the_hash_with_other_bytes_grants_nothing,
    test_knowing_the_hash_is_not_enough,
)

pytestmark = pytest.mark.usefixtures("artifacts_dir")


def test_who_uploads_known_bytes_cannot_tell_that_they_were_known(alice, mallory):
    """Always read in full, always 201: deduplication shows nowhere outside."""
    first, second, third = alice.put(PATH, CONTENT), mallory.put(PATH, CONTENT), mallory.put(PATH, CONTENT)

    assert first.status_code == second.status_code == third.status_code == 201
    assert first.content == second.content == third.content
    assert Artifact.objects.count() == 1
