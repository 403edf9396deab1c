"""`llm.chat`: an OpenAI chat completion by the server that a miner runs beside itself (`apps.gpu.agent.llm`).

What it writes goes to the job's log as it comes, one JSON object `{"delta": text}` a line. The platform
counts the tokens again for models whose tokenizer is pinned here; others are known by their device time.
"""

import re
from typing import Any, Final

from apps.gpu.runtimes.contract import Code, Context, Runtime, RuntimeFailure

_O200K: Final = re.compile(r"(openai/)?gpt-oss-(20|120)b", re.ASCII)  # rs-bpe carries this tokenizer's data


def tokens(job: Any, output: Any) -> int | None:
    """Of the texts in and out, without the marks between messages; None for a model without a counter."""
    if not _O200K.fullmatch(job["model"]):
        return None
    from rs_bpe import openai

    texts = [message["content"] for message in (*job["messages"], output["choices"][0]["message"])]
    return sum(int(openai.o200k_base().count(text)) for text in texts)


def run(job: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    raise RuntimeFailure(Code.UNKNOWN, "this miner has no server of language models")


RUNTIME: Final = Runtime(
    kind="llm.chat",
    run=run,
    available=lambda _: "needs --llm-url, an OpenAI-compatible server",
    models=lambda job: (job["model"],),
)
