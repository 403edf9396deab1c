import contextlib
import http.server
import threading
import time

import jsonschema
import pytest

from aitbc.core.testing import cast
from apps.gpu.agent.llm import LlmServer
from apps.gpu.agent.loop import Agent, Config, kinds_to_offer
from apps.gpu.agent.sandbox import Canceled, Limits, Sandbox
from apps.gpu.runtimes import llm_chat, misfits
from apps.gpu.runtimes.contract import Code, RuntimeFailure
from apps.gpu.tests import tiny_llm
from apps.gpu.tests.steps import lease_of, read, submit

JOB = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "seed": 1, "temperature": 0}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    server, url = tiny_llm.serve(tmp_path_factory.mktemp("llm"), "tiny")
    yield LlmServer(url)
    del server


def chat(llm, *, seconds=30, say=lambda _: None, stopped=lambda: False, **changes):
    job = JOB | changes
    assert misfits("llm.chat", "input", job) == []
    return llm.run(job, Limits(seconds=seconds), say, stopped)


def failure(llm, **changes):
    with pytest.raises(RuntimeFailure) as caught:
        chat(llm, **changes)
    return caught.value


def test_a_real_model_writes_what_its_seed_makes_it_write(llm):
    said = []

    first, second = (chat(llm, max_tokens=12, say=said.append) for _ in range(2))

    jsonschema.validate(first.output, llm_chat.RUNTIME.output_schema)
    assert first.output == second.output
    (choice,) = first.output["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"]
    assert "".join(said) == 2 * choice["message"]["content"]
    # <s>, then a token for each byte of " user: the cat\nassistant:", three for each space.
    assert first.output["usage"] == {"prompt_tokens": 32, "completion_tokens": 12, "total_tokens": 44}


def test_text_is_told_while_it_is_written(llm):
    told = []

    outcome = chat(llm, max_tokens=1500, say=lambda text: told.append((time.monotonic(), text)))

    ended = time.monotonic()
    assert "".join(text for _, text in told) == outcome.output["choices"][0]["message"]["content"]
    assert len(told) > 1
    assert ended - told[0][0] > 0.5 * outcome.milliseconds / 1000


def test_a_stopped_or_late_completion_ends_at_once_and_frees_the_server(llm):
    begun = time.monotonic()
    with pytest.raises(Canceled):
        chat(llm, max_tokens=8000, stopped=lambda: time.monotonic() - begun > 0.3)
    assert time.monotonic() - begun < 5

    caught = failure(llm, max_tokens=8000, seconds=0.3)

    assert (caught.code, caught.fault, caught.message) == (
        Code.TIMEOUT, "client", "the job ran longer than its 0.3 seconds",
    )  # fmt: skip
    begun = time.monotonic()
    chat(llm, max_tokens=1)  # there is one place in the server: those before have left it
    assert time.monotonic() - begun < 2


def test_what_the_model_refuses_is_the_clients_fault(llm):
    caught = failure(llm, messages=[{"role": "user", "content": "x" * 9000}])

    assert (caught.code, caught.fault) == (Code.INVALID_INPUT, "client")
    assert "exceeds the available context size" in caught.message


class _Broken(http.server.BaseHTTPRequestHandler):
    answers = []

    def do_POST(self):
        status, body = self.answers.pop()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture
def broken():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield LlmServer(f"http://127.0.0.1:{server.server_port}/v1")
        server.shutdown()


@pytest.mark.parametrize(
    "answer",
    [
        (500, b""),
        (200, b'data: {"choices":[{"index":0,"delta":{"content":"half"}}]}\n\n'),
        (200, b"data: {\n\n"),
        (200, b"data: [1]\n\n"),
        (200, b'data: {"choices":[{"delta":{"content":7}}]}\n\ndata: [DONE]\n\n'),
    ],
)
def test_a_broken_server_is_the_providers_fault(broken, answer):
    _Broken.answers = [answer]

    caught = failure(broken)

    assert (caught.code, caught.fault) == (Code.CRASHED, "provider")


def test_models_are_those_that_the_server_names(llm, broken):
    assert llm.models() == ["tiny"]
    _Broken.answers = [(200, b'{"models": []}')]
    with pytest.raises(RuntimeError, match="no OpenAI-compatible server"):
        broken.models()


def test_the_kind_is_offered_only_with_a_server(llm):
    config = Config(name="m", region="eu", price="0.001", llm_url=llm.url + "/")
    with contextlib.closing(Sandbox(tier="process")) as sandbox:
        assert "llm.chat" not in kinds_to_offer(Config(name="m", region="eu", price="0.001"), sandbox, "cpu")
        assert "llm.chat" in kinds_to_offer(config, sandbox, "cpu")
        agent = Agent(transport=None, identity=None, sandbox=sandbox, devices=[_device()], config=config, prefix="abc")

    assert agent._models == ["tiny"]


def _device():
    from apps.gpu.agent.detect import detect

    return detect(cpus=(0,), only=()).devices[0]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"tools": []}, []),
        ({"n": 2}, []),
        ({"messages": []}, ["messages"]),
        ({"messages": [{"role": "tool", "content": "x"}]}, ["messages", "0", "role"]),
        ({"temperature": 3}, ["temperature"]),
    ],
)
def test_requests_that_are_not_plain_chats_are_refused(change, place):
    (wrong,) = misfits("llm.chat", "input", JOB | change)

    assert wrong["loc"] == ["body", "input", *place]


def test_a_job_goes_only_to_a_miner_that_has_its_model(alice):
    other = cast.seller("other", kinds=("llm.chat",), models=("llama",))
    mike = cast.seller("mike", kinds=("llm.chat",), models=("llama", "tiny"))

    job = submit(alice, kind="llm.chat", input=JOB)

    assert other.poll() == []
    assert [lease["id"] for lease in mike.poll()] == [job["id"]]


def _completed(alice, model, metrics):
    miner = cast.seller("m", kinds=("llm.chat",), models=(model,))
    lease = lease_of(alice, miner, kind="llm.chat", input=JOB | {"model": model})
    message = {"role": "assistant", "content": "Hello, world!"}
    output = {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10**6, "completion_tokens": 10**6, "total_tokens": 2 * 10**6},
    }
    assert miner.deliver(lease, output, metrics=metrics).status_code == 200
    return read(alice.get(f"/v1/jobs/{lease['id']}/result"))["metrics"]


def test_tokens_are_counted_by_the_platform_whatever_the_miner_says(alice):
    metrics = _completed(alice, "gpt-oss-20b", {"counted": {"unit": "token", "amount": 10**6}, "x": 1})

    assert metrics == {"x": 1, "counted": {"unit": "token", "amount": 6}}  # "the cat" 2, "Hello, world!" 4


def test_a_model_without_a_pinned_counter_has_no_counted_tokens(alice):
    assert _completed(alice, "tiny", {"counted": {"unit": "token", "amount": 10**6}, "x": 1}) == {"x": 1}
