"""The platform as a client sees it: `/v1` over HTTP, with an API key."""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from aitbc.demo.failure import Failed, require

JSON = dict[str, Any]
BATCH = 100  # what the batch calls take
PENDING = ("queued", "leased", "running")


class Api:
    """One caller. A refusal that was not expected is `Failed`, in the platform's own words."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}", "User-Agent": "aitbc-demo"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def send(self, method: str, path: str, *expected: int, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Failed(f"{method} {path}: no answer ({error})", log="log/web.log") from error
        require(
            response.status_code in (expected or (200,)),
            f"{method} {path} answered {response.status_code}: {response.text[:500]}",
            log="log/web.log",
        )
        return response

    def get(self, path: str, **params: Any) -> JSON:
        answer: JSON = self.send("GET", path, params=params).json()
        return answer

    def pages(self, path: str, **params: Any) -> Iterator[JSON]:
        """The items of a list, page by page."""
        cursor: JSON | None = {}
        while cursor is not None:
            page = self.get(path, limit=200, **params, **cursor)
            yield from page["items"]
            cursor = {"cursor": page["next"]} if page["next"] else None

    def submit(self, bodies: Sequence[JSON]) -> None:
        """In batches of up to 100; each body has its own `id`."""
        for chunk in chunks(bodies):
            items = self.send("POST", "/v1/jobs/batch", 207, json={"jobs": chunk}).json()["items"]
            refused = [item["problem"] for item in items if item["status"] != 201]
            require(not refused, f"{len(refused)} jobs of a batch were refused, the first: {refused[:1]}")

    def job(self, job: str) -> JSON:
        return self.get(f"/v1/jobs/{job}")

    def jobs(self, *, since: str) -> dict[str, JSON]:
        """All own jobs created after an RFC 3339 moment, by id."""
        return {job["id"]: job for job in self.pages("/v1/jobs", created_after=since)}

    def results(self, jobs: Sequence[str]) -> dict[str, JSON]:
        """`{"result", "receipt"}` of every job that is completed. One that ended otherwise is `Failed`."""
        found: dict[str, JSON] = {}
        for chunk in chunks(jobs):
            items = self.send("GET", "/v1/jobs/results", 207, params={"id": chunk}).json()["items"]
            for job, item in zip(chunk, items, strict=True):
                if item["status"] == 200:
                    found[job] = item
                elif item["status"] != 425:
                    raise Failed(f"job {job} did not complete: {item['problem']}", log="log/demo-miner-*.log")
        return found

    def receipt(self, job: str) -> bytes:
        """The receipt exactly as it was sent."""
        return self.send("GET", f"/v1/jobs/{job}/receipt").content

    def verify(self, receipt: JSON) -> JSON:
        """The platform's checks of a receipt, which must be valid."""
        verdict: JSON = self.send("POST", "/v1/receipts/verify", json=receipt).json()
        require(verdict["valid"], f"the receipt of {receipt['statement']['job']}: {verdict}")
        checks: JSON = verdict["checks"]
        return checks


def chunks(items: Sequence[Any], size: int = BATCH) -> Iterator[list[Any]]:
    return (list(items[start : start + size]) for start in range(0, len(items), size))
