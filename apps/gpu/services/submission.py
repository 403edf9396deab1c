"""Submitting work: check it, escrow its price, queue it."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from aitbc.accounts import parameters
from aitbc.core import db, money, ports
from aitbc.core.errors import Conflict, DomainError, Forbidden, Invalid, NotFound, TooMany
from aitbc.core.ids import is_uuid7, uuid7
from apps.gpu.runtimes import misfits, runtimes
from apps.gpu.services.artifacts import require_access

MAX_INLINE_INPUT = 1024 * 1024
DECIMALS = 18
_AS_ORDERED = ("kind", "input", "input_artifact", "priority", "gpu_model", "region", "min_reliability")


@dataclass(frozen=True, slots=True)
class Order:
    """A job as its client wants it; the edge has checked shapes, this module checks truth."""

    kind: str
    max_price: str | None
    input: Any = None
    input_artifact: str | None = None
    id: UUID | None = None
    offer_id: UUID | None = None
    order_id: UUID | None = None
    ttl_seconds: int = 900
    priority: int = 0
    gpu_model: str | None = None
    min_vram_gb: float | None = None
    cuda: str | None = None
    region: str | None = None
    models: tuple[str, ...] = ()
    min_reliability: float | None = None
    purpose: str = "commercial"


def prepare(client: UUID, order: Order) -> dict[str, Any]:
    """The item that `gpu_submit` takes, or the reason why this order cannot be one."""
    if order.kind not in runtimes():
        raise Invalid(
            "job.unknown_kind",
            f"this platform knows no job kind {order.kind!r}",
            errors=[{"loc": ["body", "kind"], "msg": f"known kinds: {', '.join(sorted(runtimes()))}"}],
        )
    if order.id is not None and not is_uuid7(order.id):
        raise Invalid.field("id", "a client-made job id is a UUID version 7")
    max_price = _budget(order)
    inline = _inline(order)
    artifacts = _check_input(client, order)
    offer = _terms(order, max_price) if order.offer_id else None
    return {
        "id": str(order.id or uuid7()),
        "fresh_id": order.id is None,
        "payment": str(uuid7()),
        **{name: getattr(order, name) for name in _AS_ORDERED},
        "artifacts": artifacts,
        "models": sorted({*order.models, *(runtimes()[order.kind].models(order.input) if order.input else ())}),
        "digest": _digest(order, max_price, inline),
        "salt": os.urandom(32).hex(),
        "offer_id": str(order.offer_id) if order.offer_id else None,
        "order_id": str(order.order_id) if order.order_id else None,
        "max_price": str(max_price),
        "listed_price": str(offer.unit_price) if offer else None,
        "miner": str(offer.miner_id) if offer else None,
        "ttl": order.ttl_seconds,
        "min_vram_mb": int(order.min_vram_gb * 1024) if order.min_vram_gb else None,
        "cuda": _version(order.cuda),
    }


def _budget(order: Order) -> int:
    """What the job may cost, in smallest units: nothing if an order pays, which then says where it runs."""
    if order.order_id is not None:
        if order.max_price is not None or order.offer_id is not None:
            raise Invalid.field("order_id", "an order pays and says where: leave max_price and offer_id out")
        return 0
    if order.max_price is None:
        raise Invalid.field("max_price", "how much may the job cost? Or name the order that pays")
    if not 0 < (units := money.units(order.max_price, DECIMALS)) <= money.MAX_UNITS:
        raise Invalid.field("max_price", "must be more than nothing")
    return units


def _terms(order: Order, max_price: int) -> Any:
    """What the named offer promises; this job must be one that it can run and that pays for a second."""
    terms = ports.get("offer.terms")(order.offer_id)
    if order.kind not in terms.kinds:
        raise Invalid.field("kind", f"this offer runs {', '.join(terms.kinds)}")
    surcharge = order.priority * parameters.get("priority_surcharge_bps") if order.priority else 0
    price = money.ceil_div(terms.unit_price * (10_000 + surcharge), 10_000)
    if max_price < price:
        raise Invalid.field("max_price", f"less than one second costs: {money.show(price, DECIMALS)}")
    return terms


def submit(*, client: UUID, order: Order, key: str | None, digest: bytes | None) -> tuple[str, str]:
    """One job under an optional Idempotency-Key -> (`ok`, `replay` or a state of the key, job document)."""
    try:
        item = prepare(client, order)
    except (NotFound, Conflict, Forbidden):
        if earlier := _by_key(client, key, digest) or _by_id(client, order):
            return earlier
        raise
    code, document = db.rows(
        "SELECT * FROM gpu_submit(%s::uuid, %s::text, %s::bytea, %s::jsonb)",
        (client, key, digest, orjson.dumps(item).decode()),
    )[0]
    if code not in ("ok", "exists", "replay", "in_flight", "mismatch"):
        raise refusal(code)
    return code, document


def submit_batch(*, client: UUID, orders: list[Order | DomainError]) -> list[tuple[str, Any] | DomainError]:
    """Up to 100 jobs in one transaction; each answers for itself, in the order given."""
    prepared = [order if isinstance(order, DomainError) else _try_prepare(client, order) for order in orders]
    items = [item for item in prepared if isinstance(item, dict)]
    answers = iter(
        db.rows(
            "SELECT code, document::text FROM gpu_submit_items(%s::uuid, %s::jsonb) ORDER BY ord",
            (client, orjson.dumps(items).decode()),
        )
        if items
        else []
    )
    return [_outcome(*next(answers)) if isinstance(item, dict) else item for item in prepared]


def refusal(code: str) -> DomainError:
    if code == "insufficient_funds":
        return Conflict("payment.insufficient_funds", "the available balance does not cover max_price")
    if code == "queue_full":
        return TooMany("job.queue_full", "as many of your jobs wait as may wait at once", retry_after=10)
    if code == "order_unknown":
        return NotFound("order.unknown", "you have no such order")
    if code == "order_not_active":
        return Conflict("order.not_active", "this order has no devices now: it has not begun, or it is over")
    if code.startswith("exists_with_different_"):
        field = code.removeprefix("exists_with_different_")
        return Conflict("job.exists", f"a job with this id exists with another {field}", field=field)
    return Conflict(f"payment.{code}", f"the escrow was refused: {code.replace('_', ' ')}")


def _outcome(code: str, document: Any) -> tuple[str, Any] | DomainError:
    return (code, document) if code in ("ok", "exists") else refusal(code)


def _try_prepare(client: UUID, order: Order) -> dict[str, Any] | tuple[str, str] | DomainError:
    try:
        return prepare(client, order)
    except (NotFound, Conflict, Forbidden) as error:
        return _by_id(client, order) or error
    except DomainError as error:
        return error


def _by_key(client: UUID, key: str | None, digest: bytes | None) -> tuple[str, str] | None:
    """The stored answer of a repeat: that its offer or artifact has ended since does not undo it."""
    if key is None:
        return None
    state, document = db.rows(
        "SELECT state, body FROM core_idempotency_begin(%s::uuid, 'jobs.submit', %s::text, %s::bytea)",
        (client, key, digest),
    )[0]
    return None if state == "new" else (state, document)


def _by_id(client: UUID, order: Order) -> tuple[str, str] | None:
    """The job that this very order made earlier."""
    if order.id is None:
        return None
    same = bytes.fromhex(_digest(order, _budget(order), _inline(order)))
    found = db.row(
        """SELECT gpu_job_document(j, p)::text FROM gpu_job j LEFT JOIN trading_payment p ON p.job = j.id
            WHERE j.id = %s AND j.client_id = %s AND j.digest = %s""",
        (order.id, client, same),
    )
    return ("exists", found[0]) if found else None


def _check_input(client: UUID, order: Order) -> list[str]:
    """The artifacts that the miner will need; every one must be the client's, or licensed to him."""
    if (order.input is None) == (order.input_artifact is None):
        raise Invalid.field("input", "give either input or input_artifact")
    artifacts: tuple[str, ...] = (order.input_artifact,) if order.input_artifact else ()
    if order.input is not None:
        if errors := misfits(order.kind, "input", order.input):
            raise Invalid("job.invalid_input", f"the input does not fit {order.kind}", errors=errors)
        artifacts = runtimes()[order.kind].artifacts(order.input)
    if artifacts:
        licensed = ports.get("artifact.licences")(user=client, hashes=list(artifacts), purpose=order.purpose)
        require_access(user=client, hashes=[each for each in artifacts if each not in licensed])
    return sorted(set(artifacts))


def _inline(order: Order) -> bytes:
    """The input as plain JSON. A number that JSON parsers do not read alike could not be committed to by
    the miner, so such an input would never end in a receipt."""
    try:
        plain = orjson.dumps(order.input, option=orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER)
    except TypeError as error:
        raise Invalid.field("input", f"this input cannot be kept as JSON: {error}") from error
    if len(plain) > MAX_INLINE_INPUT:
        raise Invalid.field("input", f"more than {MAX_INLINE_INPUT} bytes: upload it and name it as input_artifact")
    return plain


def _digest(order: Order, max_price: int, inline: bytes) -> str:
    """What makes two submissions under one id the same."""
    content = [
        order.kind,
        hashlib.sha256(inline).hexdigest(),
        order.input_artifact,
        str(order.offer_id or ""),
        str(max_price),
        order.ttl_seconds,
        order.priority,
        [order.gpu_model, order.min_vram_gb, order.cuda, order.region, order.models],
        [str(order.order_id or ""), order.min_reliability],
    ]
    return hashlib.sha256(orjson.dumps(content)).hexdigest()


def _version(text: str | None) -> list[int] | None:
    """12.4.0 asks for no more than 12.4: arrays compare part by part, and the shorter one is less."""
    if text is None:
        return None
    parts = [int(part) for part in text.split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return parts
