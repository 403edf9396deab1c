"""Mike and Nora sell, Alice buys; offers are listed through the API unless a test says otherwise."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import orjson
import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, Seller
from apps.gpu.models import Device
from apps.gpu.services.miners import DeviceClaim

OFFERS = "/v1/marketplace/offers"


def read(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.content
    return orjson.loads(response.content)


def price(amount: str) -> dict[str, Any]:
    return {"on_demand": {"amount": amount, "asset": "AIT"}}


def card(model: str = "NVIDIA H200", memory_mb: int = 141 * 1024) -> DeviceClaim:
    return DeviceClaim(uuid=f"GPU-{uuid4()}", kind="cuda", model=model, memory_mb=memory_mb, cuda="12.8")


def add_device(seller: Seller, claim: DeviceClaim) -> Device:
    return Device.objects.create(
        miner_id=seller.miner_id,
        uuid=claim.uuid,
        kind=claim.kind,
        model=claim.model,
        memory_mb=claim.memory_mb,
        cuda=claim.cuda,
    )


@pytest.fixture
def alice(db: None) -> cast.Person:
    alice = cast.person("alice", scopes=("jobs:read", "jobs:write"))
    cast.fund(alice.id, AIT)
    return alice


@pytest.fixture
def mike(db: None) -> Seller:
    return cast.seller("mike", device=card(), price="0.001")


@pytest.fixture
def nora(db: None) -> Seller:
    return cast.seller("nora", device=card("NVIDIA RTX 4090", 24 * 1024), price="0.001", region="us")


@pytest.fixture
def offer_of() -> Callable[..., dict[str, Any]]:
    def make(seller: Seller, amount: str = "0.001", **body: Any) -> dict[str, Any]:
        offer: dict[str, Any] = read(seller.post(OFFERS, {"price": price(amount), **body}), 201)
        return offer

    return make
