"""Start-up checks: a task is never redelivered while it may still run."""

import pytest
from django.core import checks
from django.test import override_settings


@pytest.mark.parametrize(("timeout", "errors"), [(10_801, []), (10_800, ["aitbc.E001"]), (60, ["aitbc.E001"])])
def test_the_visibility_timeout_is_longer_than_the_longest_job(timeout, errors):
    with override_settings(CELERY_VISIBILITY_TIMEOUT=timeout, MAX_JOB_SECONDS=10_800):
        assert [message.id for message in checks.run_checks(tags=["aitbc"])] == errors


def test_the_settings_in_use_pass_every_check():
    assert checks.run_checks() == []


def test_no_parameter_allows_a_longer_job_than_the_settings_know(settings):
    from aitbc.accounts.parameters import DEFINITIONS

    (longest,) = [d.maximum for d in DEFINITIONS if d.name == "max_job_seconds"]
    assert longest <= settings.MAX_JOB_SECONDS
