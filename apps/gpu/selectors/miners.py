"""What a miner reads about itself."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from aitbc.core import db, money
from aitbc.core.errors import Invalid, NotFound
from aitbc.core.pagination import decode, encode


def page_of_jobs(*, key: UUID, state: str | None, cursor: str | None, limit: int) -> str:
    after = decode(cursor, 1)
    try:
        last = UUID(str(after[0])) if after else None
    except ValueError as error:
        raise Invalid("request.cursor", "this cursor is not one of ours") from error
    found = db.rows(
        """SELECT j.id, gpu_job_document(j, p)::text FROM gpu_miner m JOIN gpu_job j ON j.miner_id = m.id
             LEFT JOIN trading_payment p ON p.job = j.id
            WHERE m.key_id = %s AND (%s::text IS NULL OR j.state = %s) AND (%s::uuid IS NULL OR j.id < %s)
            ORDER BY j.id DESC LIMIT %s""",
        (key, state, state, last, last, limit + 1),
    )
    if not found:
        require_registered(key)
    items = ",".join(document for _, document in found[:limit])
    more = orjson.dumps(encode(found[limit - 1][0]) if len(found) > limit else None).decode()
    return f'{{"items":[{items}],"next":{more}}}'


def require_registered(key: UUID) -> None:
    if db.row("SELECT 1 FROM gpu_miner WHERE key_id = %s", (key,)) is None:
        raise NotFound("miner.unregistered", "this key has not registered a miner")


def earnings(*, key: UUID, start: datetime | None, end: datetime | None) -> dict[str, Any]:
    """Released and still maturing amounts of the jobs that this miner finished in the period."""
    found = db.row(
        """SELECT coalesce(sum(p.released) FILTER (WHERE p.matured_at IS NOT NULL), 0),
                  coalesce(sum(p.released) FILTER (WHERE p.matured_at IS NULL), 0),
                  coalesce(sum(p.fee), 0), count(p.id)::int, bool_or(true)
             FROM gpu_miner m LEFT JOIN gpu_job j ON j.miner_id = m.id
              AND (%s::timestamptz IS NULL OR j.finished_at >= %s)
              AND (%s::timestamptz IS NULL OR j.finished_at < %s)
             LEFT JOIN trading_payment p ON p.job = j.id AND p.released > 0 WHERE m.key_id = %s""",
        (start, start, end, end, key),
    )
    if found is None or found[4] is None:
        raise NotFound("miner.unregistered", "this key has not registered a miner")
    released, maturing, fees = ({"amount": money.show(int(x), 18), "asset": "AIT"} for x in found[:3])
    return {"released": released, "maturing": maturing, "fees": fees, "jobs": found[3]}
