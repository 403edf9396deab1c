"""Passes chat completions on to an OpenAI-compatible server that the provider runs, and streams its answer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import httpx

from apps.gpu.agent.sandbox import Canceled, Limits, Outcome
from apps.gpu.runtimes.contract import Code, RuntimeFailure, invalid_input

SAY_SECONDS: Final = 0.2  # between two reports of what was written
_CLIENTS: Final = (400, 413, 422)  # what the server says of a request that it could read and will not answer


@dataclass(frozen=True)
class LlmServer:
    """`url` as OpenAI's clients take it: up to and with `/v1`."""

    url: str

    def models(self) -> list[str]:
        """Names of the models it serves; RuntimeError if it does not answer as such a server."""
        try:
            return [str(m["id"]) for m in httpx.get(f"{self.url}/models", timeout=10).raise_for_status().json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise RuntimeError(f"no OpenAI-compatible server at {self.url}: {error}") from error

    def run(self, job: Any, limits: Limits, say: Callable[[str], None], stopped: Callable[[], bool]) -> Outcome:
        """As `Sandbox.run`; `say` gets the text as it is written, and an early end closes the connection."""
        begun, fresh = time.monotonic(), SimpleQueue[str]()
        with ThreadPoolExecutor(1) as pool:
            answering = pool.submit(asyncio.run, self._watched(job, limits.seconds, fresh.put, stopped))
            while not answering.done() or not fresh.empty():
                wait([answering], SAY_SECONDS)
                if text := "".join(fresh.get() for _ in range(fresh.qsize())):
                    say(text)
        output = answering.result()
        metrics = {"sandbox": {"tier": "none", "network": "llm server"}}
        return Outcome(output, metrics, round((time.monotonic() - begun) * 1000))

    async def _watched(
        self, job: Any, seconds: float, say: Callable[[str], None], stopped: Callable[[], bool]
    ) -> dict[str, Any]:
        deadline, answering = time.monotonic() + seconds, asyncio.ensure_future(self._answer(job, say))
        while not (await asyncio.wait({answering}, timeout=0.1))[0]:
            if stopped():
                raise Canceled
            if time.monotonic() > deadline:
                raise RuntimeFailure(Code.TIMEOUT, f"the job ran longer than its {seconds:g} seconds")
        try:
            return answering.result()
        except httpx.HTTPError as error:
            raise RuntimeFailure(Code.CRASHED, f"the server failed: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RuntimeFailure(Code.CRASHED, "the server's answer is no chat completion") from error

    async def _answer(self, job: Any, say: Callable[[str], None]) -> dict[str, Any]:
        text = finish = ""
        usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
        async for chunk in self._chunks(job):
            usage = {name: int((chunk.get("usage") or usage)[name]) for name in usage}
            choice = chunk["choices"][0] if chunk["choices"] else {}
            finish = choice.get("finish_reason") or finish
            fresh = (choice.get("delta", {}).get("content") or "").replace("\0", "\ufffd")
            say(fresh)
            text += fresh
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": finish}]
        return {"object": "chat.completion", "model": job["model"], "choices": choices, "usage": usage}

    async def _chunks(self, job: Any) -> AsyncIterator[Any]:
        body = job | {"stream": True, "stream_options": {"include_usage": True}}
        async with httpx.AsyncClient(timeout=None) as client:
            async with client.stream("POST", f"{self.url}/chat/completions", json=body) as response:
                if response.status_code in _CLIENTS:
                    raise invalid_input(f"the model refused: {(await response.aread()).decode(errors='replace')[:300]}")
                rest = b""
                async for block in response.raise_for_status().aiter_bytes():
                    *lines, rest = (rest + block).split(b"\n")  # no other line end: a text may hold U+2028
                    for line in lines:
                        if line.strip() == b"data: [DONE]":
                            return
                        if line.startswith(b"data:"):
                            yield json.loads(line.removeprefix(b"data:"))
        raise ValueError("the stream ended early")
