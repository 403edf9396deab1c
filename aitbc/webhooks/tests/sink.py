"""A real receiver on a real port: it remembers what came and answers what it is told to."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str]]


@dataclass
class Sink:
    host: str
    port: int = 0
    answer: Callable[["Request"], Answer] = lambda request: (204, {})
    requests: list["Request"] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sink: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        self.sink.requests.append(request)
        status, headers = self.sink.answer(request)
        self.send_response(status)
        for name, value in ({"content-length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Tests read `requests`."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed or gave up is what some tests are about."""


@contextmanager
def sink(
    host: str = "127.0.0.1",
    port: int = 0,
    answer: Callable[[Request], Answer] = lambda request: (204, {}),
    tls: ssl.SSLContext | None = None,
) -> Iterator[Sink]:
    found = Sink(host, answer=answer)
    with _Server((host, port), type("Handler", (_Handler,), {"sink": found})) as server:
        found.port = server.server_port
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()
