"""What offers can be asked for: each field's column, its type, and the units that its values may carry."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from apps.gpu.models import Device
from apps.marketplace.models import Offer


@dataclass(frozen=True, slots=True)
class Field:
    """`sql` over the offer `o`; a value is multiplied by `scale` to be compared with it. `of_class`: the
    classes know it too, under the same name of the column; `bounded`: they know its bounds."""

    kind: str
    sql: str
    scale: Fraction = Fraction(1)
    units: str = ""
    of_class: bool = False
    bounded: bool = False
    choices: tuple[str, ...] = ()


UNITS: Final[dict[str, dict[str, Fraction]]] = {
    "memory": {"mb": Fraction(1, 1024), "mib": Fraction(1, 1024), "gb": Fraction(1), "gib": Fraction(1)}
    | {"tb": Fraction(1024), "tib": Fraction(1024)},
    "time": {"s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86_400)},
    "share": {"%": Fraction("0.01")},
    "speed": {"tflops": Fraction(1), "pflops": Fraction(1000)},
    "bandwidth": {"gbps": Fraction(1), "tbps": Fraction(1000)},
    "": {},
}
_AIT, _GIB, _AN_HOUR = Fraction(10**18), Fraction(1024), Fraction(10**18, 3600)


def _number(sql: str, units: str = "", *, bounded: bool = False) -> Field:
    return Field("float", sql, units=units, bounded=bounded)


def _age(column: str) -> Field:
    return Field("float", f"extract(epoch FROM statement_timestamp() - o.{column})::float8", units="time")


_OCCUPIED = """EXISTS (SELECT FROM marketplace_offer_device d JOIN gpu_occupancy u ON u.device_id = d.device_id
  WHERE d.offer_id = o.id AND u.during @> statement_timestamp())"""
_MEMORY = Field("int", "o.memory_mb", _GIB, "memory", of_class=True)
_SPOT, _RESERVED = "o.spot_price", "div(o.price * (10000 - o.reserved_discount_bps) + 9999, 10000)"
FIELDS: Final[dict[str, Field]] = {
    "model": Field("model", "o.model_key", of_class=True),
    "kind": Field("choice", "o.device_kind", of_class=True, choices=tuple(Device.Kind)),
    "memory_gb": _MEMORY,
    "vram": _MEMORY,
    "total_memory_gb": Field("int", "(o.memory_mb::bigint * o.device_count)", _GIB, "memory"),
    "count": Field("int", "o.device_count"),
    "cuda": Field("version", "o.cuda"),
    "driver": Field("text", "o.driver"),
    "tflops": _number("o.tflops", "speed", bounded=True),
    "total_tflops": _number("(o.tflops * o.device_count)", "speed"),
    "memory_gbps": _number("o.memory_gbps", "bandwidth", bounded=True),
    "total_memory_gbps": _number("(o.memory_gbps * o.device_count)", "bandwidth"),
    "dl_score": _number("o.dl_score", bounded=True),
    "total_dl_score": _number("(o.dl_score * o.device_count)"),
    "price": Field("amount", "o.price", _AIT, bounded=True),
    "price_hour": Field("amount", "o.price", _AN_HOUR, bounded=True),
    "total_price": Field("amount", "(o.price * o.device_count)", _AIT),
    "total_price_hour": Field("amount", "(o.price * o.device_count)", _AN_HOUR),
    "spot": Field("amount", _SPOT, _AIT),
    "spot_hour": Field("amount", _SPOT, _AN_HOUR),
    "spot_discount": _number(f"(1 - {_SPOT}::float8 / o.price::float8)", "share"),
    "reserved": Field("amount", _RESERVED, _AIT),
    "reserved_hour": Field("amount", _RESERVED, _AN_HOUR),
    "reserved_discount": _number("(o.reserved_discount_bps / 10000::float8)", "share"),
    "price_per_tflops": _number("o.price_per_tflops"),
    "price_per_gb": _number("(o.price::float8 * 3600e-18 * 1024 / o.memory_mb)"),
    "price_per_dl": _number("(o.price::float8 * 3600e-18 / nullif(o.dl_score, 0))"),
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
    "region": Field("text", "o.region_key"),
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
