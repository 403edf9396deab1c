"""Rule 32: kinds that run a client's code are offered only where the sandbox isolates them."""

from types import SimpleNamespace

import pytest

from apps.gpu.agent.loop import Config, kinds_to_offer
from apps.gpu.models import Miner
from apps.gpu.runtimes import runtimes
from apps.gpu.tests.steps import read
from apps.gpu.tests.test_miners import (  # noqa: F401 - fixtures, and a test collected here too
    private_key,
    test_in_production_a_clients_code_needs_a_sandbox_that_isolates_it,
    vera,
)
from apps.gpu.tests.test_runtimes_container_run import (  # noqa: F401 - fixtures, and collected here too
    podman,
    sandbox,
    test_an_engine_with_root_is_not_used,
    test_an_image_is_named_by_its_digest,
    test_an_image_runs_without_network_rights_or_socket,
)
from apps.gpu.tests.test_runtimes_ray_submit import (  # noqa: F401 - collected here too
    test_a_program_has_a_real_cluster_to_itself_which_ends_with_it,
)
from apps.gpu.tests.test_sandbox import (  # noqa: F401 - collected here too
    test_a_bubblewrap_that_does_not_work_here_is_not_used,
    test_bubblewrap_is_taken_only_where_its_self_test_passes,
)


def test_a_clients_programs_run_only_where_the_host_is_hidden():
    bare = SimpleNamespace(tier="process", exposed=["/srv/var"])

    assert "onnx.infer" in kinds_to_offer(config(allow_client_code=True), bare, "cpu")
    assert "container.run" not in kinds_to_offer(config(allow_client_code=True), bare, "cpu")


CLIENT_CODE = {kind for kind, runtime in runtimes().items() if runtime.runs_client_code}


def config(**changes):
    return Config(**{"name": "m", "region": "eu", "price": "0.001"} | changes)


def test_the_kinds_that_take_a_clients_model_say_so():
    assert "onnx.infer" in CLIENT_CODE
    assert "bench.matmul" not in CLIENT_CODE


@pytest.mark.parametrize(
    ("tier", "allowed", "offered"), [("process", False, False), ("process", True, True), ("bubblewrap", False, True)]
)
def test_the_miner_itself_does_not_offer_them_without_isolation(tier, allowed, offered):
    kinds = kinds_to_offer(config(allow_client_code=allowed), SimpleNamespace(tier=tier, exposed=[]), "cpu")

    assert (CLIENT_CODE & set(kinds) != set()) is offered
    assert "bench.matmul" in kinds


def test_asking_for_such_a_kind_all_the_same_is_an_error():
    with pytest.raises(ValueError, match=r"onnx\.infer: not offered in this sandbox"):
        kinds_to_offer(config(kinds=("onnx.infer",)), SimpleNamespace(tier="process", exposed=[]), "cpu")


def test_the_tier_is_shown(mike):
    assert read(mike.get("/v1/miners/me"))["sandbox"] == Miner.objects.get().sandbox == "process"
