import hashlib
import json

import httpx
import pytest

from aitbc.core.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from apps.gpu.agent.transport import HttpTransport

LEASE = {"lease_token": "t", "statement_signature": "0x"}


class Server:
    """Answers in order; the last one for ever. An exception is raised instead of an answer."""

    def __init__(self, *answers):
        self.answers, self.requests, self.slept = list(answers), [], []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def transport(self, **options):
        return HttpTransport(
            "https://platform.test", "ait_abc_secret", http=httpx.MockTransport(self),
            sleep=self.slept.append, **options,
        )  # fmt: skip


def problem(status, code, **more):
    headers = more.pop("headers", {})
    return httpx.Response(status, json={"code": code, "detail": "because", **more}, headers=headers)


def test_calls_carry_the_key_and_the_documented_bodies():
    server = Server(httpx.Response(200, json={"jobs": [{"id": "j"}]}))

    jobs = server.transport().poll(max_jobs=2, wait_seconds=5, kinds=["bench.matmul"])

    (request,) = server.requests
    assert jobs == [{"id": "j"}]
    assert (request.method, request.url.path) == ("POST", "/v1/miners/poll")
    assert request.headers["authorization"] == "Bearer ait_abc_secret"
    assert json.loads(request.content) == {"max_jobs": 2, "wait_seconds": 5, "kinds": ["bench.matmul"]}


@pytest.mark.parametrize(
    ("call", "method", "path"),
    [
        (lambda t: t.nonce(), "POST", "/v1/miners/nonce"),
        (lambda t: t.register({}), "POST", "/v1/miners/register"),
        (lambda t: t.heartbeat({}), "POST", "/v1/miners/heartbeat"),
        (lambda t: t.start("j", lease_token="t"), "POST", "/v1/miners/j/start"),
        (lambda t: t.progress("j", {"lease_token": "t"}), "POST", "/v1/miners/j/progress"),
        (lambda t: t.result("j", LEASE), "POST", "/v1/miners/j/result"),
        (lambda t: t.fail("j", {}), "POST", "/v1/miners/j/fail"),
        (lambda t: t.challenge_commit("c", []), "POST", "/v1/miners/challenges/c/commit"),
        (lambda t: t.challenge_open("c", []), "POST", "/v1/miners/challenges/c/open"),
        (lambda t: t.drain(), "POST", "/v1/miners/me/drain"),
        (lambda t: t.sign_off(), "DELETE", "/v1/miners/me"),
        (lambda t: t.wait("https://stream.test/v1/miners/wait", seconds=9), "GET", "/v1/miners/wait"),
    ],
)
def test_every_call_goes_where_the_contract_says(call, method, path):
    server = Server(httpx.Response(200, json={}))

    call(server.transport())

    (request,) = server.requests
    assert (request.method, request.url.path) == (method, path)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthenticated), (403, Forbidden), (404, NotFound), (409, Conflict), (422, Invalid), (400, Invalid)],
)
def test_a_refusal_is_an_answer_and_not_repeated(status, kind):
    server = Server(problem(status, "lease.lost", expected={"sequence": 3}))

    with pytest.raises(kind) as caught:
        server.transport().result("j", LEASE)

    assert (caught.value.code, caught.value.message) == ("lease.lost", "because")
    assert caught.value.context == {"expected": {"sequence": 3}}
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "outage",
    [problem(503, "x.unavailable"), problem(429, "http.too_many"), httpx.Response(502, text="<html>"),
     httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut")],
)  # fmt: skip
def test_an_outage_is_waited_out_with_growing_pauses(outage):
    server = Server(outage, outage, outage, httpx.Response(200, json={"ok": 1}))

    assert server.transport().result("j", LEASE) == {"ok": 1}

    assert len({request.content for request in server.requests}) == 1
    assert len(server.requests) == 4
    assert server.slept[0] < server.slept[1] < server.slept[2] <= 1


def test_an_outage_longer_than_the_patience_is_reported():
    server = Server(httpx.ConnectError("refused"))

    with pytest.raises(Unavailable) as caught:
        server.transport(patience=0).result("j", LEASE)

    assert caught.value.message == "the platform does not answer: refused"
    assert server.slept == []


def test_the_platforms_own_pause_is_kept():
    server = Server(problem(429, "http.too_many", headers={"Retry-After": "7"}), httpx.Response(200, json={}))

    server.transport().result("j", LEASE)

    assert server.slept == [7.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.poll(max_jobs=1, wait_seconds=0, kinds=[]),
        lambda t: t.heartbeat({}),
        lambda t: t.register({}),
        lambda t: t.challenge_commit("c", []),
    ],
)
def test_what_a_repeat_could_spoil_is_sent_once(call):
    server = Server(httpx.ReadTimeout("slow"))

    with pytest.raises(Unavailable):
        call(server.transport())

    assert len(server.requests) == 1


def test_an_artifact_arrives_whole_or_is_asked_for_again(tmp_path):
    content = b"model" * 1000
    sha256 = hashlib.sha256(content).hexdigest()
    server = Server(httpx.Response(200, content=content[:-1]), httpx.Response(200, content=content))

    server.transport().get_artifact(sha256, tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == content
    assert [request.url.path for request in server.requests] == [f"/v1/artifacts/{sha256}"] * 2


def test_a_missing_artifact_is_an_answer(tmp_path):
    server = Server(problem(404, "artifact.unknown"))

    with pytest.raises(NotFound):
        server.transport().get_artifact("ab" * 32, tmp_path / "a")

    assert len(server.requests) == 1


def test_an_artifact_is_put_under_its_hash():
    server = Server(httpx.Response(201, json={}))

    sha256 = server.transport().put_artifact(b"output")

    (request,) = server.requests
    assert sha256 == hashlib.sha256(b"output").hexdigest()
    assert (request.method, request.url.path, request.content) == ("PUT", f"/v1/artifacts/{sha256}", b"output")
