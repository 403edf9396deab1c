"""Mike and Nora sell, Alice buys; offers are listed through the API unless a test says otherwise."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import orjson
import pytest
from django.conf import settings

from aitbc.chain import signing
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, Seller
from apps.gpu import statements
from apps.gpu.models import Device, Miner
from apps.gpu.services import miners
from apps.gpu.services.miners import DeviceClaim, Registration

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


def come_back(seller: Seller) -> None:
    """Register again with what the miner was, as the daemon does when it starts."""
    miner = Miner.objects.get(pk=seller.miner_id)
    nonce = miners.make_nonce(key=seller.principal.key_id)
    proof = {"prefix": seller.principal.prefix, "nonce": nonce, "address": miner.address}
    digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.MINER_REGISTRATION, proof)
    claims = tuple(
        DeviceClaim(uuid=d.uuid, kind=d.kind, model=d.model, memory_mb=d.memory_mb, cuda=d.cuda)
        for d in miner.devices.all()
    )
    registration = Registration(
        name=miner.name,
        region=miner.region,
        concurrency=miner.concurrency,
        kinds=tuple(miner.kinds),
        models=(),
        devices=claims,
        price="0.001",
        address=miner.address,
        proof=signing.sign(seller.private_key, digest),
        nonce=nonce,
    )
    miners.register(caller=seller.principal, registration=registration)


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
