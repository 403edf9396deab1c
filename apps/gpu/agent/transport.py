"""How a miner speaks with the platform: the `/v1/miners` contract.

Every call raises the errors of `aitbc.core.errors`: `Unavailable` is worth a repeat, the others are an
answer. Reports about a lease may be repeated: the lease token makes them one report.
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from aitbc.core import errors
from aitbc.core.errors import DomainError, Invalid, Unavailable

JSON = dict[str, Any]
Answer = TypeVar("Answer")
_BLOCK: Final = 1 << 20


class HttpTransport:
    """Kept-alive connections, usable from several threads; `http` takes the place of the network.

    Calls that may be repeated are, with growing pauses, for `patience` seconds of `Unavailable`.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        patience: float = 30,
        http: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}", "User-Agent": "aitbc-miner"}
        timeout = httpx.Timeout(30, connect=5)
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=http)
        self.patience, self._sleep = patience, sleep

    # -- the calls -----------------------------------------------------------------------------
    def nonce(self) -> JSON:
        return self._post("/v1/miners/nonce", {})

    def register(self, profile: JSON) -> JSON:
        # Not repeated by itself: the nonce in it is used up by the first arrival.
        return self._once("POST", "/v1/miners/register", json=profile)

    def heartbeat(self, beat: JSON) -> JSON:
        return self._once("POST", "/v1/miners/heartbeat", json=beat)  # the next beat comes anyway

    def poll(self, *, max_jobs: int, wait_seconds: float, kinds: list[str]) -> list[JSON]:
        body = {"max_jobs": max_jobs, "wait_seconds": wait_seconds, "kinds": kinds}
        jobs: list[JSON] = self._once("POST", "/v1/miners/poll", json=body, timeout=30 + wait_seconds)["jobs"]
        return jobs

    def wait(self, url: str, *, seconds: float) -> None:
        """Returns when there may be work, at the latest after `seconds`."""
        self._once("GET", url, params={"seconds": seconds}, timeout=10 + seconds)

    def start(self, job: str, *, lease_token: str) -> None:
        self._post(f"/v1/miners/{job}/start", {"lease_token": lease_token})

    def progress(self, job: str, body: JSON) -> None:
        self._once("POST", f"/v1/miners/{job}/progress", json=body)

    def result(self, job: str, body: JSON) -> JSON:
        return self._post(f"/v1/miners/{job}/result", body)

    def fail(self, job: str, body: JSON) -> None:
        self._post(f"/v1/miners/{job}/fail", body)

    def challenge_commit(self, challenge: str, roots: list[str]) -> JSON:
        # A repeat would meet a challenge that is committed already, and its nonce would be lost.
        return self._once("POST", f"/v1/miners/challenges/{challenge}/commit", json={"roots": roots})

    def challenge_open(self, challenge: str, rows: list[JSON]) -> JSON:
        return self._once("POST", f"/v1/miners/challenges/{challenge}/open", json={"rows": rows})

    def challenge_memory(self, challenge: str, said: JSON) -> JSON:
        return self._once("POST", f"/v1/miners/challenges/{challenge}/memory", json=said)

    def get_artifact(self, sha256: str, path: Path) -> None:
        """Writes the artifact to `path`; what has another hash is asked for again."""
        self._patiently(lambda: self._download(sha256, path))

    def put_artifact(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self._patiently(lambda: self._once("PUT", f"/v1/artifacts/{sha256}", content=content))
        return sha256

    def orders(self) -> list[JSON]:
        """Orders of the market that wait for this miner to start them."""
        items: list[JSON] = self._once("GET", "/v1/miners/me/orders", params={"state": "accepted"})["items"]
        return items

    def start_order(self, order: str) -> None:
        self._post(f"/v1/miners/orders/{order}/start", {})

    def me(self) -> JSON:
        return self._patiently(lambda: self._once("GET", "/v1/miners/me"))

    def drain(self) -> None:
        self._post("/v1/miners/me/drain", {})

    def sign_off(self) -> None:
        self._patiently(lambda: self._once("DELETE", "/v1/miners/me"))

    def close(self) -> None:
        self._client.close()

    # -- the wire ------------------------------------------------------------------------------
    def _post(self, path: str, body: JSON) -> JSON:
        return self._patiently(lambda: self._once("POST", path, json=body))

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        deadline = time.monotonic() + self.patience
        for pause in pauses():
            try:
                return call()
            except Unavailable as error:
                pause = max(pause, error.context.get("retry_after", 0.0))
                if time.monotonic() + pause > deadline:
                    raise
                self._sleep(pause)
        raise AssertionError("the pauses never end")

    def _once(self, method: str, path: str, **options: Any) -> JSON:
        try:
            response = self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise _unreachable(error) from error
        if response.is_success:
            answer: JSON = response.json() if response.content else {}
            return answer
        raise error_of(response)

    def _download(self, sha256: str, path: Path) -> None:
        digest = hashlib.sha256()
        try:
            with self._client.stream("GET", f"/v1/artifacts/{sha256}") as response, path.open("wb") as file:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                for block in response.iter_bytes(_BLOCK):
                    digest.update(block)
                    file.write(block)
        except httpx.TransportError as error:
            raise _unreachable(error) from error
        if digest.hexdigest() != sha256:
            raise Unavailable("artifact.damaged", f"the bytes of artifact {sha256} arrived damaged")


def pauses() -> Iterator[float]:
    """Seconds between tries: doubling from a quarter of a second to 15, each drawn from its upper half."""
    length = 0.25
    while True:
        yield random.uniform(length / 2, length)
        length = min(2 * length, 15)


def _unreachable(error: httpx.TransportError) -> Unavailable:
    reason = str(error) or type(error).__name__
    return Unavailable("platform.unreachable", f"the platform does not answer: {reason}")


_KINDS: Final[dict[int, type[DomainError]]] = {
    kind.status: kind
    for kind in (errors.Unauthenticated, errors.Forbidden, errors.NotFound, errors.Conflict, errors.NotReady)
}


def error_of(response: httpx.Response) -> DomainError:
    """A refusal in the platform's own words; 429 and 5xx, which a repeat may cure, as `Unavailable`."""
    try:
        body = response.json()
        code, message = str(body["code"]), str(body["detail"])
        context = {k: v for k, v in body.items() if k in ("errors", "expected")}
    except (ValueError, KeyError, TypeError):  # a proxy's page instead of a problem document
        code, message, context = f"http.{response.status_code}", "the platform refused the request", {}
    status = response.status_code
    if status == 429 or status >= 500:
        after = response.headers.get("Retry-After", "")
        return Unavailable(code, message, retry_after=float(after) if after.isdecimal() else 0.0)
    return _KINDS.get(status, Invalid)(code, message, **context)
