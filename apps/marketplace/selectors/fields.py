"""What offers can be asked for: each field's column, its type, and the units that its values may carry."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from apps.gpu.models import Device
from apps.marketplace.models import Offer


@dataclass(frozen=True, slots=True)
class Field:
    """`sql` over the offer `o`; a value is multiplied by `scale` to be compared with it. `of_class`: the
    classes know it too, under the same name of the column."""

    kind: str
    sql: str
    scale: Decimal = Decimal(1)
    units: str = ""
    of_class: bool = False
    choices: tuple[str, ...] = ()


UNITS: Final[dict[str, dict[str, Decimal]]] = {
    "memory": {"mb": Decimal(1) / 1024, "mib": Decimal(1) / 1024, "gb": Decimal(1), "gib": Decimal(1)}
    | {"tb": Decimal(1024), "tib": Decimal(1024)},
    "time": {"s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86_400)},
    "share": {"%": Decimal("0.01")},
    "speed": {"tflops": Decimal(1), "pflops": Decimal(1000)},
    "bandwidth": {"gbps": Decimal(1), "tbps": Decimal(1000)},
    "": {},
}
_AIT, _GIB, _HOUR = Decimal(10**18), Decimal(1024), 3600


def _number(sql: str, units: str = "") -> Field:
    return Field("float", sql, units=units)


def _age(column: str) -> Field:
    return Field("float", f"extract(epoch FROM statement_timestamp() - o.{column})::float8", units="time")


_OCCUPIED = """EXISTS (SELECT FROM marketplace_offer_device d JOIN gpu_occupancy u ON u.device_id = d.device_id
  WHERE d.offer_id = o.id AND u.during @> statement_timestamp())"""
_MEMORY = Field("int", "o.memory_mb", _GIB, "memory", of_class=True)
_SPOT, _RESERVED = "o.spot_price", "(o.price * (10000 - o.reserved_discount_bps) / 10000)"
FIELDS: Final[dict[str, Field]] = {
    "model": Field("model", "o.model_key", of_class=True),
    "kind": Field("choice", "o.device_kind", of_class=True, choices=tuple(Device.Kind)),
    "memory_gb": _MEMORY,
    "vram": _MEMORY,
    "total_memory_gb": Field("int", "(o.memory_mb::bigint * o.device_count)", _GIB, "memory"),
    "count": Field("int", "o.device_count"),
    "cuda": Field("version", "o.cuda"),
    "driver": Field("text", "o.driver"),
    "tflops": _number("o.tflops", "speed"),
    "total_tflops": _number("(o.tflops * o.device_count)", "speed"),
    "memory_gbps": _number("o.memory_gbps", "bandwidth"),
    "total_memory_gbps": _number("(o.memory_gbps * o.device_count)", "bandwidth"),
    "dl_score": _number("o.dl_score"),
    "total_dl_score": _number("(o.dl_score * o.device_count)"),
    "price": Field("amount", "o.price", _AIT),
    "price_hour": Field("amount", f"(o.price * {_HOUR})", _AIT),
    "total_price": Field("amount", "(o.price * o.device_count)", _AIT),
    "total_price_hour": Field("amount", f"(o.price * o.device_count * {_HOUR})", _AIT),
    "spot": Field("amount", _SPOT, _AIT),
    "spot_hour": Field("amount", f"({_SPOT} * {_HOUR})", _AIT),
    "spot_discount": _number(f"(1 - {_SPOT}::float8 / o.price::float8)", "share"),
    "reserved": Field("amount", _RESERVED, _AIT),
    "reserved_hour": Field("amount", f"({_RESERVED} * {_HOUR})", _AIT),
    "reserved_discount": _number("(o.reserved_discount_bps / 10000::float8)", "share"),
    "price_per_tflops": _number("o.price_per_tflops"),
    "price_per_gb": _number(f"(o.price::float8 * {_HOUR}e-18 * 1024 / o.memory_mb)"),
    "price_per_dl": _number(f"(o.price::float8 * {_HOUR}e-18 / nullif(o.dl_score, 0))"),
    "tflops_per_price": _number("(1 / nullif(o.price_per_tflops, 0))"),
    "score": _number("o.score"),
    "reliability": _number("o.reliability", "share"),
    "reliability_low": _number("o.reliability_low", "share"),
    "reliability_high": _number("o.reliability_high", "share"),
    "reliability_samples": Field("int", "o.reliability_samples"),
    "verified": Field("bool", "o.verified"),
    "first_party": Field("bool", "o.first_party"),
    "sandbox": Field("text", "o.sandbox"),
    "concurrency": Field("int", "o.concurrency"),
    "region": Field("text", "o.region"),
    "kinds": Field("set", "o.kinds"),
    "miner": Field("uuid", "o.miner_id"),
    "id": Field("uuid", "o.id"),
    "asset": Field("text", "o.asset"),
    "state": Field("choice", "o.state", choices=tuple(Offer.State)),
    "reason": Field("choice", "nullif(o.reason, '')", choices=tuple(Offer.Reason)),
    "occupied": Field("bool", _OCCUPIED),
    "available": Field(
        "bool", f"(o.state = 'listed' AND o.available_from <= statement_timestamp() AND NOT {_OCCUPIED})"
    ),
    "min_seconds": Field("int", "o.min_seconds", units="time"),
    "max_seconds": Field("int", "o.max_seconds", units="time"),
    "created": Field("time", "o.created_at"),
    "updated": Field("time", "o.updated_at"),
    "available_from": Field("time", "o.available_from"),
    "expires": Field("time", "o.expires_at"),
    "age": _age("created_at"),
    "unchanged": _age("updated_at"),
}
