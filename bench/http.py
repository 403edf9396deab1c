"""A lean HTTP/1.1 keep-alive client on asyncio: the generator must cost less than what it measures."""

import asyncio
from typing import Any

import orjson


class Connection(asyncio.Protocol):
    """One request at a time; answers are (status, body bytes)."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self.transport: Any = None

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, mark, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        if not mark:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 : head.find(b"\r\n", at) if head.find(b"\r\n", at) > 0 else None]) if at > 0 else 0
        if len(rest) >= length and self.waiting:
            del self.buffer[: len(head) + 4 + length]
            waiting, self.waiting = self.waiting, None
            waiting.set_result((int(head[9:12]), rest[:length]))

    async def request(self, method: str, path: str, token: str = "", body: Any = None, headers: str = "") -> Any:
        data = orjson.dumps(body) if body is not None else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(data)}\r\n"
            f"{'content-type: application/json' if data else 'accept: */*'}\r\n"
            f"{f'authorization: Bearer {token}' if token else 'x-none: 1'}\r\n{headers}\r\n"
        )
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(head.encode() + data)
        status, answer = await self.waiting
        return status, orjson.loads(answer) if answer[:1] in (b"{", b"[") else answer
