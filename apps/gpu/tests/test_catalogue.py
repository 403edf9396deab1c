"""Known cards, and how devices are held against them."""

import pytest

from aitbc.core import db
from aitbc.core.models import OutboxEvent
from aitbc.core.testing import cast
from apps.gpu.models import Device
from apps.gpu.tests.steps import read, refused


def card_of(name):
    return db.value("SELECT gpu_card_of(%s)", (name,))


def claim(model="NVIDIA GeForce RTX 4090", memory_mb=24_564, **more):
    facts = {"uuid": f"GPU-{model}-{memory_mb}", "kind": "cuda", "model": model, "memory_mb": memory_mb}
    return cast.DeviceClaim(**facts | more)


@pytest.fixture
def measured(db):
    """A device of the catalogue with what a challenge would have found."""

    def make(*, model="NVIDIA GeForce RTX 4090", memory_mb=24_564, tflops=70.0, memory_gbps=800.0, kind="cuda"):
        seller = cast.seller("mike", device=claim(model, memory_mb, kind=kind))
        device = Device.objects.get(miner=seller.miner_id)
        Device.objects.filter(pk=device.pk).update(verified=True, tflops=tflops, memory_gbps=memory_gbps)
        device.refresh_from_db()
        return device

    return make


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("Tesla V100-SXM2-16GB", "V100 SXM2 16GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5"),
        ("NVIDIA H200", "H200 SXM"),
        ("Tesla T4", "T4"),
        ("AMD Instinct MI300X", "MI300X"),
        ("AMD Instinct MI250X / MI250", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Voodoo 3", None),
        ("", None),
    ],
)
def test_cards_are_known_by_the_names_that_drivers_give_them(db, name, card):
    assert card_of(name) == card


def test_the_catalogue_answers_by_architecture_memory_and_name(db):
    anyone = cast.person("anyone", scopes=("jobs:read",))

    def models(query):
        return [card["model"] for card in read(anyone.get(f"/v1/gpu/catalogue?{query}"))["items"]]

    assert models("architecture=hopper") == ["H100 NVL", "H100 PCIe", "H100 SXM5", "H200 SXM"]
    assert models("min_memory_gb=141&architecture=hopper") == ["H200 SXM"]
    assert models("q=5090") == ["RTX 5090"]
    assert models("q=NVIDIA%20A100-SXM4-40GB") == ["A100 SXM4 40GB"]
    assert models("q=Voodoo") == []  # unknown, and no error
    everything = read(anyone.get("/v1/gpu/catalogue"))["items"]
    assert len({card["model"] for card in everything}) == len(everything) >= 45
    h200 = next(card for card in everything if card["model"] == "H200 SXM")
    assert h200 == {
        "model": "H200 SXM", "kind": "cuda", "architecture": "hopper", "compute": "9.0", "memory_gb": 141,
        "fp32_tflops": 66.9, "fp16_tflops": 989, "bf16_tflops": 989, "memory_gbps": 4800, "power_w": 700,
    }  # fmt: skip
    page = read(anyone.get("/v1/gpu/catalogue?limit=7"))
    rest = read(anyone.get(f"/v1/gpu/catalogue?cursor={page['next']}"))["items"]
    assert page["items"] + rest == everything
    refused(anyone.get("/v1/gpu/catalogue?min_memory_gb=much"), 422, "request.invalid")


def test_a_card_that_delivers_what_its_model_does_is_verified_as_it(measured):
    device = measured()

    assert (device.verified, device.verified_model, device.doubt) == (True, "RTX 4090", "")
    assert device.dl_score == pytest.approx(100 * (70 / 35.6 * 800 / 936) ** 0.5)


def test_a_worse_card_under_a_better_name_is_named_for_what_it_is(measured):
    device = measured(model="NVIDIA H100 80GB HBM3", memory_mb=81_559, tflops=17.0, memory_gbps=1900.0)

    assert (device.verified, device.verified_model, device.dl_score) == (False, "A100 PCIe 80GB", None)
    assert device.doubt == (
        "it delivers 17.00 TFLOPS and 1900.0 GB/s, like the A100 PCIe 80GB "
        "and not like the H100 SXM5 that it claims to be"
    )
    event = OutboxEvent.objects.get(event="gpu.device_doubted")
    assert event.payload == {"miner": str(device.miner_id), "device": str(device.pk), "doubt": device.doubt}


def test_the_measurement_stays_what_it_was_when_the_miner_registers_again(measured):
    device = measured(tflops=5.0)
    assert device.doubt

    Device.objects.filter(pk=device.pk).update(claimed_tflops=80)

    device.refresh_from_db()
    assert (device.verified, bool(device.doubt)) == (False, True)


def test_much_faster_than_the_model_is_not_the_model_either(measured):
    assert "not like the T4" in measured(model="Tesla T4", memory_mb=15_360, tflops=60, memory_gbps=900).doubt


@pytest.mark.parametrize("kind", ["cuda", "rocm"])
def test_an_unknown_card_is_unknown_and_not_an_error(measured, kind):
    device = measured(model="Voodoo 3", memory_mb=16, kind=kind)

    assert (device.verified, device.verified_model, device.doubt) == (True, "unknown", "")


@pytest.mark.parametrize(
    ("claimed", "doubt"),
    [
        ({"memory_mb": 49_152}, "the RTX 4090 has 24 GB of memory, not 49152 MiB"),
        ({"tflops": 200.0}, "the RTX 4090 computes 82.6 TFLOPS at its best, not 200"),
        ({"memory_gbps": 3000.0}, "the memory of the RTX 4090 moves 1008 GB/s, not 3000"),
        ({"tflops": 80.0, "memory_gbps": 950.0}, ""),
    ],
)
def test_impossible_claims_are_flagged_at_registration(db, claimed, doubt):
    seller = cast.seller("mike", device=claim(**claimed))

    assert Device.objects.get().doubt == doubt
    assert OutboxEvent.objects.filter(event="gpu.device_doubted").count() == bool(doubt)
    assert read(seller.get("/v1/miners/me"))["devices"][0]["doubt"] == doubt
