"""Following a log: from the web's redirect, through a real stream process, to the end of the job."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as live
from django.db import connection, connections

from aitbc import following, stream
from aitbc.accounts.keys import create_key
from aitbc.chain.signing import address_of
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT
from apps.gpu.agent.identity import Identity
from apps.gpu.agent.llm import LlmServer
from apps.gpu.agent.sandbox import MIB, Sandbox, Slot
from apps.gpu.agent.work import Lease, Worker
from apps.gpu.models import Job
from apps.gpu.services import logs
from apps.gpu.tests import tiny_llm
from apps.gpu.tests.steps import lease_of, refused, start, submit
from apps.gpu.worker import local_transport

END = 'event: end\ndata: {"state":"completed"}\n\n'
HELLO = "retry: 2000\n\n"


@pytest.fixture
def stage(committed_db):
    """Alice's job in Mike's hands."""
    alice, mike = cast.person("alice"), cast.seller("mike")
    cast.fund(alice.id, AIT)
    lease = lease_of(alice, mike)
    start(mike, lease)
    return alice, mike, lease


def say(miner, lease, *lines, first):
    body = {"lease_token": lease["lease_token"], "logs": lines, "logs_from": first}
    response = miner.post(f"/v1/miners/{lease['id']}/progress", body)
    assert response.status_code == 200, response.content


async def follow(job, *, token="", ticket="", last="", while_open=None, leaves=None, where="logs/follow", query=""):
    """One request to the stream application -> (status, text); `while_open` runs after the first bytes."""
    sent, opened = [], asyncio.Event()

    async def send(message):
        sent.append(message)
        if message.get("body"):
            opened.set()

    async def receive(messages=[{"type": "http.request"}]):  # noqa: B006 - handed out once
        if messages:
            return messages.pop()
        await (leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/v1/jobs/{job}/{where}",
        "query_string": (f"ticket={ticket}" if ticket else query).encode(),
        "headers": [*headers, (b"last-event-id", last.encode())],
    }
    asking = asyncio.create_task(stream.application(scope, receive, send))
    if while_open is not None:
        await opened.wait()
        await asyncio.to_thread(_in_thread, while_open)
    await asking
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


def _in_thread(function):
    try:
        return function()
    finally:
        connections.close_all()


def run(story):
    async def closed():
        try:
            return await asyncio.wait_for(story, 30)
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(closed())


def test_lines_arrive_while_the_job_runs_until_it_is_final(stage):
    alice, mike, lease = stage
    say(mike, lease, "before", first=0)

    def go_on():
        say(mike, lease, "while", first=1)
        time.sleep(1.5 * following.LOOK_SECONDS)
        say(mike, lease, "after", first=2)
        assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200

    status, text = run(follow(lease["id"], token=alice.token, while_open=go_on))

    events = "id: 1\ndata: before\n\nid: 2\ndata: while\n\nid: 3\ndata: after\n\n"
    assert (status, text) == (200, HELLO + events + END)
    assert following._open == set()


def test_an_interrupted_follower_goes_on_where_it_was(stage):
    alice, mike, lease = stage
    for number in range(2):
        say(mike, lease, f"line {number}", first=number)
    mike.deliver(lease, MATMUL_OUTPUT)

    status, text = run(follow(lease["id"], token=alice.token, last="1"))

    assert (status, text) == (200, HELLO + "id: 2\ndata: line 1\n\n" + END)


def test_a_client_that_leaves_is_let_go(stage):
    alice, _, lease = stage

    async def story():
        leaves = asyncio.Event()
        answer = await follow(lease["id"], token=alice.token, while_open=leaves.set, leaves=leaves)
        return answer, len(following._open)

    assert run(story()) == ((200, HELLO), 0)
    assert Job.objects.get().state == "running"


def test_a_silent_job_and_the_end_of_the_time(stage, monkeypatch):
    alice, _, lease = stage
    monkeypatch.setattr(following, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(following, "MOST_SECONDS", 1)
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.1)

    status, text = run(follow(lease["id"], token=alice.token))

    assert (status, text.replace(":\n\n", "")) == (200, HELLO)
    assert 2 <= text.count(":\n\n") <= 6


def test_above_the_cap_a_client_gets_what_there_is_and_comes_back(stage, monkeypatch):
    alice, mike, lease = stage
    monkeypatch.setattr(following, "PLACES", 0)
    say(mike, lease, "one", first=0)

    assert run(follow(lease["id"], token=alice.token)) == (200, HELLO + "id: 1\ndata: one\n\n")


def test_who_may_not_read_the_log_may_not_follow_it(stage):
    _, mike, lease = stage
    job = lease["id"]
    mallory, seller = cast.person("mallory"), cast.person("seller", scopes=("miner",))
    other = logs.ticket(client=mallory.id, job=job)
    for expected, credentials in (
        ((401, "auth.invalid_key"), {}),
        ((401, "auth.invalid_key"), {"token": "nonsense"}),
        ((403, "auth.scope"), {"token": seller.token}),
        ((404, "job.unknown"), {"token": mallory.token}),
        ((404, "job.unknown"), {"token": mike.token}),
        ((404, "job.unknown"), {"ticket": other}),
        ((401, "auth.ticket"), {"ticket": other[:-1] + "!"}),
    ):
        status, text = run(follow(job, **credentials))
        assert (status, orjson.loads(text)["code"]) == expected


def test_a_client_is_led_from_the_web_to_the_stream_process(stage, settings):
    """Over real sockets, with a client that does not send its key to where it is redirected."""
    alice, mike, lease = stage
    with _stream_process() as url:
        settings.STREAM_URL = url
        led = alice.get(f"/v1/jobs/{lease['id']}/logs", accept="text/event-stream")
        assert led.status_code == 307
        say(mike, lease, "one", first=0)
        with httpx.stream("GET", led["Location"], timeout=20) as response:
            assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
            finish = threading.Timer(1, lambda: _in_thread(lambda: mike.deliver(lease, MATMUL_OUTPUT)))
            finish.start()
            text = "".join(response.iter_text())
            finish.join()

    assert text == HELLO + "id: 1\ndata: one\n\n" + END


@contextlib.contextmanager
def _stream_process():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parts = urlsplit(live.DATABASE_URL)
    database = parts._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    argv = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--workers", "1", "--no-ws", "--workers-kill-timeout", "1"]
    process = subprocess.Popen(
        [*argv, "aitbc.stream:application"], env=os.environ | {"DATABASE_URL": database}, cwd=live.BASE_DIR
    )
    try:
        _until_live(f"http://127.0.0.1:{port}/health/live")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _until_live(url):
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        assert time.monotonic() < deadline, "the stream process does not answer"
        time.sleep(0.1)


# -- /v1/jobs/{id}/stream --------------------------------------------------------------------------


def leaving(job, way, **access):
    """Read the stream of a job and go away while it is open."""

    async def story():
        leaves = asyncio.Event()
        asking = asyncio.ensure_future(follow(job, where="stream", leaves=leaves, **({"query": way} | access)))
        await asyncio.sleep(0.5)
        leaves.set()
        return await asking

    return run(story())


def test_a_reader_who_leaves_cancels_the_job_if_that_is_what_he_chose(stage):
    alice, mike, lease = stage
    say(mike, lease, '{"delta":"one"}', first=0)

    status, text = leaving(lease["id"], "on_disconnect=cancel", token=alice.token)

    assert (status, text) == (200, HELLO + 'id: 1\ndata: {"delta":"one"}\n\n')
    assert Job.objects.get().state == "canceled"


@pytest.mark.parametrize("way", ["on_disconnect=detach", ""])
def test_a_reader_who_leaves_detaches_otherwise(stage, way):
    alice, mike, lease = stage

    assert leaving(lease["id"], way, token=alice.token) == (200, HELLO)

    assert Job.objects.get().state == "running"
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200


def test_leaving_after_the_end_cancels_nothing(stage):
    alice, mike, lease = stage
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200

    assert leaving(lease["id"], "on_disconnect=cancel", token=alice.token) == (200, HELLO + END)

    assert Job.objects.get().state == "completed"


def test_only_who_may_write_jobs_may_choose_cancel(stage, settings):
    alice, _, lease = stage
    settings.STREAM_URL = "http://stream.test"
    path = f"/v1/jobs/{lease['id']}/stream"
    _, token = create_key(user=alice.user, name="reads", scopes=("jobs:read",))
    reader = cast.Person(alice.user, token, alice.principal)

    refused(reader.get(f"{path}?on_disconnect=cancel"), 403, "auth.scope")
    detached = urlsplit(reader.get(path)["Location"])
    ticket = parse_qs(detached.query)["ticket"][0]

    assert detached.path == path
    assert leaving(lease["id"], "", token=token) == (200, HELLO)
    assert leaving(lease["id"], f"on_disconnect=cancel&ticket={ticket}")[0] == 401  # a ticket for less
    assert leaving(lease["id"], "on_disconnect=cancel", token=token)[0] == 403
    assert Job.objects.get().state == "running"
    location = urlsplit(alice.get(f"{path}?on_disconnect=cancel")["Location"])
    assert leaving(lease["id"], location.query)[0] == 200
    assert Job.objects.get().state == "canceled"


def test_a_strangers_job_has_no_stream(stage, settings):
    _, _, lease = stage
    settings.STREAM_URL = "http://stream.test"
    path = f"/v1/jobs/{lease['id']}/stream?on_disconnect=cancel"

    refused(cast.person("mallory").get(path), 404, "job.unknown")
    assert leaving(lease["id"], "on_disconnect=cancel", token=cast.person("mallory").token)[0] == 404
    assert Job.objects.get().state == "running"


def test_the_first_words_of_a_language_model_arrive_before_its_job_ends(committed_db, tmp_path):
    """Through a real agent and a real, tiny model: its server, the miner, the platform, the stream."""
    server, url = tiny_llm.serve(tmp_path, "tiny", context=8_192)
    alice, mike = cast.person("alice"), cast.seller("mike", kinds=("llm.chat",), models=("tiny",))
    cast.fund(alice.id, AIT)
    messages, price = [{"role": "user", "content": "go on"}], {"amount": "0.1", "asset": "AIT"}
    asked = {"model": "tiny", "messages": messages, "max_tokens": 1_500, "temperature": 0}
    job = submit(alice, kind="llm.chat", input=asked, max_price=price)
    (lease,) = mike.poll()
    with contextlib.closing(Sandbox(tier="process")) as sandbox, contextlib.closing(local_transport(mike.token)) as web:
        worker = Worker(
            web, Identity(address_of(mike.private_key), mike.private_key), sandbox, 100 * MIB, llm=LlmServer(url)
        )
        perform = partial(worker.perform, Lease(lease), Slot(), chain_id=live.CHAIN_ID)
        working = threading.Thread(target=_in_thread, args=(perform,))
        states = []

        def work():
            working.start()
            while not (text := alice.get(f"/v1/jobs/{job['id']}/logs").content):
                time.sleep(0.05)
            states.append((Job.objects.get().state, text))

        status, text = run(follow(job["id"], token=alice.token, where="stream", while_open=work))
        working.join(30)

    del server
    ((state, early),) = states
    deltas = [orjson.loads(line.removeprefix("data: "))["delta"] for line in text.splitlines() if '"delta"' in line]
    output = orjson.loads(alice.get(f"/v1/jobs/{job['id']}/result").content)["output"]
    assert (status, state) == (200, "running")
    assert early.startswith(b'{"delta": ')
    assert text.endswith(END)
    assert "".join(deltas) == output["choices"][0]["message"]["content"]
    assert output["usage"]["completion_tokens"] == 1_500
