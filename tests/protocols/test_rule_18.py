"""Rule 18: disputes by re-execution only where the runtime says how to compare, on unrelated miners, with consent."""

from apps.gpu.runtimes import runtimes
from apps.gpu.tests.test_reexecution import (  # noqa: F401 - collected here too
    others,
    test_a_kind_whose_machines_may_differ_is_left_to_an_operator,
    test_only_the_client_consents_and_once_and_with_a_deposit,
    test_runs_go_to_unrelated_miners_only_elsewhere_first,
    test_two_that_agree_against_the_original_refund_the_client,
    test_which_kinds_are_reproducible,
    treasury,
)


def test_who_declares_a_deviation_declares_how_much_of_it_is_none():
    for runtime in runtimes().values():
        assert runtime.tolerance >= 0
        assert runtime.deviation is not None or runtime.tolerance == 0
