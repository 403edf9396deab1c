"""The fixed cast of the tests: Alice buys, Mike and Nora sell, Mallory is a stranger."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import orjson
from django.conf import settings
from django.http import HttpResponse
from django.test import Client

from aitbc.accounts.keys import create_key, find_principal
from aitbc.accounts.models import Role, User
from aitbc.chain import keystore, signing
from aitbc.core import money
from aitbc.core.ids import uuid7
from aitbc.core.principal import Principal
from apps.gpu import statements
from apps.gpu.services import leases
from apps.gpu.services import miners as miner_services
from apps.gpu.services.miners import DeviceClaim, Registration
from apps.trading.services import ledger

AIT = 10**18
ALL_SCOPES = ("jobs:*", "money:*", "miner", "offers:write", "webhooks:*")


def ensure_receipt_key() -> None:
    keystore.load_or_create("receipt")


@dataclass
class Person:
    """A user with an API key, and a client that sends it."""

    user: User
    token: str
    principal: Principal

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        extra = {"HTTP_AUTHORIZATION": f"Bearer {self.token}"}
        extra |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body, default=str)
        return Client().generic(method, path, data, content_type="application/json", **extra)

    def get(self, path: str, **headers: str) -> HttpResponse:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> HttpResponse:
        return self.call("POST", path, {} if body is None else body, **headers)

    def put(self, path: str, body: Any, **headers: str) -> HttpResponse:
        return self.call("PUT", path, body, **headers)

    def patch(self, path: str, body: Any) -> HttpResponse:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> HttpResponse:
        return self.call("DELETE", path)

    @property
    def id(self) -> UUID:
        return self.user.pk


def person(name: str, role: str = Role.CLIENT, scopes: tuple[str, ...] = ALL_SCOPES) -> Person:
    user = User.objects.create_user(f"{name}-{uuid4().hex[:8]}@example.com", role=role)
    _, token = create_key(user=user, name="test", scopes=scopes)
    principal = find_principal(token)
    assert principal is not None
    return Person(user, token, principal)


def fund(owner: UUID, amount: int) -> None:
    """Credit an owner as a final deposit does: from the chain's mirror account."""
    ledger.apply_all(
        [
            ledger.Item(
                id=uuid7(),
                action="transfer",
                kind="deposit",
                debit=ledger.account_id(owner=None, kind="external", chain="test"),
                credit=ledger.account_id(owner=owner, kind="available"),
                amount=amount,
            )
        ]
    )


@dataclass
class Seller(Person):
    """A registered miner with its signing key."""

    private_key: bytes
    miner_id: UUID

    def sign_result(self, lease: dict[str, Any], output: Any, artifact: str | None = None) -> str:
        statement = statement_of(lease, output, artifact)
        digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.WORK_STATEMENT, statement.values())
        return signing.sign(self.private_key, digest)

    def poll(self, **body: Any) -> list[dict[str, Any]]:
        response = self.post("/v1/miners/poll", body)
        assert response.status_code == 200, response.content
        return list(orjson.loads(response.content)["jobs"])

    def claim(self, most: int) -> list[str]:
        """Ids of what the service leases, without HTTP."""
        found = leases.claim(key=self.principal.key_id, most=most, kinds=None)
        return [lease["id"] for lease in orjson.loads(found)]

    def deliver(self, lease: dict[str, Any], output: Any, **extra: Any) -> HttpResponse:
        body = {
            "lease_token": lease["lease_token"],
            "output": output,
            "metrics": {},
            "statement_signature": self.sign_result(lease, output),
        }
        return self.post(f"/v1/miners/{lease['id']}/result", body | extra)


def statement_of(lease: dict[str, Any], output: Any, artifact: str | None = None) -> statements.WorkStatement:
    """What an honest miner signs, made from the lease alone; `artifact` is an output's SHA-256."""
    salt = bytes.fromhex(lease["salt"][2:])
    return statements.WorkStatement(
        job=lease["id"],
        kind=lease["kind"],
        client=lease["client"],
        miner=lease["miner"],
        attempt=lease["attempt"],
        lease="0x" + statements.lease_hash(lease["lease_token"]).hex(),
        input_commitment=_commitment(salt, lease["input"], lease["input_artifact"]),
        output_commitment=_commitment(salt, output, artifact),
        unit_price=money.units(lease["unit_price"]["amount"], 18),
        max_units=lease["max_units"],
    )


def _commitment(salt: bytes, value: Any, artifact: str | None) -> str:
    if artifact is not None:
        return "0x" + statements.artifact_commitment(salt=salt, sha256=artifact).hex()
    return "0x" + statements.commitment(salt=salt, value=value).hex()


def registration_of(
    who: Person, private_key: bytes, *, name: str = "again", nonce: str | None = None, **changes: Any
) -> Registration:
    """What an honest miner sends: proof over its key's prefix and a fresh nonce; `changes` override."""
    address = signing.address_of(private_key)
    nonce = nonce or miner_services.make_nonce(key=who.principal.key_id)
    facts = {
        "name": name,
        "region": "eu",
        "concurrency": 1,
        "kinds": ("bench.matmul",),
        "models": (),
        "devices": (DeviceClaim(uuid=f"CPU-{uuid4()}", kind="cpu", model="Test CPU", memory_mb=4096),),
        "price": "0.001",
        "address": address,
        "proof": sign_registration(private_key, who.principal.prefix, nonce, address),
        "nonce": nonce,
    }
    return Registration(**facts | changes)


def sign_registration(private_key: bytes, prefix: str, nonce: str, address: str) -> str:
    values = {"prefix": prefix, "nonce": nonce, "address": address}
    digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.MINER_REGISTRATION, values)
    return signing.sign(private_key, digest)


def register_again(miner: "Seller", **changes: Any) -> bool:
    """The same miner registers with other facts -> whether a new one came to be."""
    changes = {"devices": tuple(changes.pop("devices"))} | changes if "devices" in changes else changes
    registration = registration_of(miner, miner.private_key, **changes)
    return miner_services.register(caller=miner.principal, registration=registration)[1]


def seller(
    name: str,
    *,
    kinds: tuple[str, ...] = ("bench.matmul",),
    concurrency: int = 1,
    price: str = "0.001",
    region: str = "eu",
    device: DeviceClaim | None = None,
    models: tuple[str, ...] = (),
) -> Seller:
    ensure_receipt_key()
    who = person(name, Role.MINER)
    private_key = signing.new_private_key()
    changes: dict[str, Any] = {} if device is None else {"devices": (device,)}
    registration = registration_of(
        who,
        private_key,
        name=name,
        kinds=kinds,
        concurrency=concurrency,
        price=price,
        region=region,
        models=models,
        **changes,
    )
    miner, _ = miner_services.register(caller=who.principal, registration=registration)
    return Seller(who.user, who.token, who.principal, private_key, miner.pk)


MATMUL = {"n": 8, "seed": 1, "dtype": "float32"}
MATMUL_OUTPUT = {"n": 8, "seconds": 0.001, "tflops": 0.5, "root": "0x" + "ab" * 32}


def job_body(**changes: Any) -> dict[str, Any]:
    body = {"kind": "bench.matmul", "input": MATMUL, "max_price": {"amount": "0.01", "asset": "AIT"}}
    return body | changes
