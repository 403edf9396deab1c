"""A JSON-RPC server of a test's own: real sockets, any answer, and every way of not answering."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """`cut`: the connection ends after half of the body, or before anything when there is none."""

    body: bytes = b""
    status: int = 200
    delay: float = 0.0
    cut: bool = False


def ok(payload: Any, answer: Callable[[str, list[Any]], Any]) -> bytes:
    """A request or a batch, each answered by `answer(method, params)`; RpcError becomes an error."""
    batch = payload if isinstance(payload, list) else [payload]
    answers = [_one(item, answer) for item in batch]
    return json.dumps(answers if isinstance(payload, list) else answers[0]).encode()


class RpcError(Exception):
    """The node's `error` object."""


def _one(item: dict[str, Any], answer: Callable[[str, list[Any]], Any]) -> dict[str, Any]:
    head = {"jsonrpc": "2.0", "id": item["id"]}
    try:
        return head | {"result": answer(item["method"], item["params"])}
    except RpcError as error:
        return head | {"error": {"code": -32000, "message": str(error)}}


@contextmanager
def serving(reply: Callable[[Any], Reply]) -> Iterator[str]:
    """The URL of a server that answers each body by `reply`, in a thread per connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def do_POST(self) -> None:
            made = reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(made.delay)
            if not made.cut:
                self._answer(made, made.body)
                return
            self.close_connection = True
            if made.body:
                self._answer(made, made.body[: len(made.body) // 2])

        def _answer(self, made: Reply, sent: bytes) -> None:
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *args: object) -> None:
            """A client that gave up is no fault of ours."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
