"""JSON-RPC to a loopback chain, with the standard library alone; the platform's own client is aitbc.chain."""

from __future__ import annotations

import http.client
import json
import urllib.request
from typing import Any

from aitbc.stack.errors import StackError

# A proxy of the environment is never asked for a loopback address.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(url: str, method: str, *params: object, timeout: float = 10) -> Any:
    """The result of one call; StackError when there is no answer or the answer is an error."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with opener.open(request, timeout=timeout) as response:
            answer = json.load(response)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise StackError(f"{method} at {url}: {error}") from error
    if "error" in answer:
        raise StackError(f"{method} at {url}: {answer['error']}")
    return answer["result"]
