"""A receiver of webhooks in a process of its own: counts what comes, by `webhook-id`, and when.

`python -m bench.sink PORT` answers 204 to every POST; `GET /` tells what has come since the last GET.
"""

import asyncio
import sys
import time

import orjson
import uvloop

_seen: set[bytes] = set()
_repeats = 0
_lags: list[float] = []


class Receiver(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = int(_header(head, b"content-length") or 0)
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.transport.write(_told() if head.startswith(b"GET") else _taken(head, rest[:length]))


def _header(head: bytes, name: bytes) -> bytes:
    at = head.lower().find(b"\r\n" + name + b":")
    return head[at + len(name) + 3 :].split(b"\r\n", 1)[0].strip() if at >= 0 else b""


def _taken(head: bytes, body: bytes) -> bytes:
    global _repeats
    event = _header(head, b"webhook-id")
    _repeats += event in _seen
    _seen.add(event)
    if told := orjson.loads(body)["data"].get("at"):
        _lags.append(time.time() - told)
    return b"HTTP/1.1 204 No Content\r\n\r\n"


def _told() -> bytes:
    answer = orjson.dumps({"events": len(_seen), "repeats": _repeats, "lags": _lags})
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
