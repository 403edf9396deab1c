"""What strangers need to judge a miner: score, log, ranking, and what its cards should be. Public, and bounded."""

import datetime as dt
from typing import Annotated, Any
from uuid import UUID

import orjson
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema

from aitbc.core import db
from aitbc.core.errors import NotFound
from aitbc.core.idempotency import json_response
from aitbc.core.pagination import decode, encode
from aitbc.core.schema import cursor_parameter, errors
from apps.gpu.models import Miner

router = Router(tags=["miners"], auth=None)
READ_MS = 250
Word = Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$")]


class Page(Schema):
    """The members of an item are those of docs/reliability.md and docs/hardware.md."""

    items: list[dict[str, Any]]
    next: str | None


def _page(query: str, values: tuple[Any, ...], cursor: str | None, limit: int) -> HttpResponse:
    """Rows of (key, document) after a key; one more than the page holds says whether there is a next one."""
    after = str((decode(cursor, 1) or [""])[0]).replace("\0", "")
    with db.bounded(READ_MS):
        found = db.rows(query, (*values, after, limit + 1))
    more = orjson.dumps(encode(found[limit - 1][0]) if len(found) > limit else None).decode()
    return json_response(f'{{"items":[{",".join(document for _, document in found[:limit])}],"next":{more}}}')


@router.get("/miners/ranking", response={200: Page} | errors(), summary="Miners, the best first")
def get_ranking(
    request: HttpRequest, region: Word = None, cursor: str | None = cursor_parameter(),
    limit: int = Query(50, ge=1, le=200),
) -> HttpResponse:  # fmt: skip
    """Each with its parts: .35 reliability, .30 performance, .20 capacity, .15 reputation (docs/reliability.md)."""
    return _page("SELECT * FROM gpu_ranking(%s::text, %s, %s::int)", (region,), cursor, limit)


@router.get("/miners/{uuid:miner_id}/reliability", response={200: dict[str, Any]} | errors(404), summary="A score")
def get_reliability(request: HttpRequest, miner_id: UUID) -> HttpResponse:
    """With all that it is made of: the formula is in docs/reliability.md, `low` to `high` the 95 % interval."""
    if found := db.row("SELECT gpu_reliability_document(%s)::text", (miner_id,)):
        return json_response(found[0])
    raise NotFound("miner.unknown", "there is no such miner")


@router.get("/miners/{uuid:miner_id}/heartbeats", response={200: Page} | errors(404), summary="A signed log")
def get_heartbeats(
    request: HttpRequest, miner_id: UUID, day: dt.date, signed: bool = False,
    cursor: str | None = cursor_parameter(), limit: int = Query(200, ge=1, le=1000),
) -> HttpResponse:  # fmt: skip
    """`head` is the EIP-712 struct hash of `Heartbeat{miner, sequence, previous, body}`, signed each minute."""
    if not Miner.objects.filter(pk=miner_id).exists():
        raise NotFound("miner.unknown", "there is no such miner")
    return _page("SELECT * FROM gpu_heartbeats(%s, %s, %s, %s, %s)", (miner_id, day, signed), cursor, limit)


@router.get("/gpu/catalogue", response={200: Page} | errors(), summary="What known cards are")
def get_catalogue(
    request: HttpRequest, architecture: Word = None, min_memory_gb: float | None = None, q: Word = None,
    cursor: str | None = cursor_parameter(), limit: int = Query(200, ge=1, le=200),
) -> HttpResponse:  # fmt: skip
    """The figures that devices are held against. `q` is part of a name, or a card as its driver calls it."""
    query = "SELECT * FROM gpu_catalogue(%s::text, %s::float8, %s::text, %s, %s::int)"
    return _page(query, (architecture, min_memory_gb, q), cursor, limit)
