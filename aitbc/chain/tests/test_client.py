"""The node's answers, good and bad, as typed results."""

import copy
import json
import random
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aitbc.chain import client as client_module
from aitbc.chain.client import Client, typed_error
from aitbc.chain.tests.rpc_server import Reply, ok, serving
from aitbc.chain.tests.simulated import SimulatedChain
from aitbc.core.errors import Conflict, Unavailable


class FakeNode:
    """Answers each request by `reply(payload) -> (status, bytes)`; counts them."""

    def __init__(self) -> None:
        self.requests: list[object] = []
        self.reply = lambda payload: (200, json.dumps(self.ok(payload, "0x7a69")).encode())
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                node.requests.append(payload)
                status, body = node.reply(payload)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """A client that gave up is no fault of ours."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        serve = {"poll_interval": 0.02}
        threading.Thread(target=self.server.serve_forever, kwargs=serve, daemon=True).start()

    @staticmethod
    def ok(payload: dict, result: object) -> dict:
        return {"jsonrpc": "2.0", "id": payload["id"], "result": result}


@pytest.fixture
def node():
    fake = FakeNode()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.mark.parametrize(
    ("message", "kind", "code"),
    [
        ("nonce too low", Conflict, "chain.nonce_too_low"),
        ("Nonce too high: next nonce 3", Conflict, "chain.nonce_too_high"),
        ("already known", Conflict, "chain.already_known"),
        ("transaction already imported", Conflict, "chain.already_known"),
        ("replacement transaction underpriced", Conflict, "chain.underpriced"),
        ("max fee per gas less than block base fee", Conflict, "chain.underpriced"),
        ("Insufficient funds for gas * price + value", Conflict, "chain.insufficient_funds"),
        ("execution reverted", Conflict, "chain.reverted"),
        ("OldNonce", Conflict, "chain.nonce_too_low"),
        ("AlreadyKnown", Conflict, "chain.already_known"),
        ("Known transaction", Conflict, "chain.already_known"),
        ("could not replace existing tx", Conflict, "chain.underpriced"),
        ("intrinsic gas too low", Conflict, "chain.gas"),
        ("exceeds block gas limit", Conflict, "chain.gas"),
        ("unknown transaction type", Unavailable, "chain.rpc"),
        ("txpool is full", Unavailable, "chain.rpc"),
        ("rate limit exceeded", Unavailable, "chain.rpc"),
        ("header not found", Unavailable, "chain.rpc"),
        ("", Unavailable, "chain.rpc"),
    ],
)
def test_node_messages_become_typed_errors(message, kind, code):
    error = typed_error({"code": -32000, "message": message})
    assert type(error) is kind
    assert error.code == code


def test_a_node_of_another_chain_is_refused_before_anything_is_asked(node):
    with pytest.raises(Unavailable, match=r"chain\.wrong_chain"):
        Client(node.url, 1).head()
    assert [request["method"] for request in node.requests] == ["eth_chainId"]


def test_the_chain_id_is_asked_once_and_again_after_a_fault(node):
    client = Client(node.url, 31337)
    client.head()
    client.head()
    good, node.reply = node.reply, lambda payload: (500, b"")
    with pytest.raises(Unavailable):
        client.head()
    node.reply = good
    client.head()
    methods = [request["method"] for request in node.requests]
    assert methods.count("eth_chainId") == 2


@pytest.mark.parametrize(
    ("status", "body"), [(500, b"{}"), (429, b"slow down"), (200, b"<html>"), (200, b"[]"), (200, b"{}"), (200, b'"x"')]
)
def test_what_is_no_answer_is_unavailable(node, status, body):
    client = Client(node.url, 31337)
    client.head()
    node.reply = lambda payload: (status, body)
    with pytest.raises(Unavailable):
        client.head()


def test_an_incomplete_batch_is_no_answer(node):
    client = Client(node.url, 31337)
    client.head()
    node.reply = lambda payload: (200, json.dumps([FakeNode.ok(payload[0], None)]).encode())
    with pytest.raises(Unavailable, match="incompletely"):
        client.headers([1, 2])
    node.reply = lambda payload: (200, b'{"error": {"code": 1, "message": "no batches"}}')
    with pytest.raises(Unavailable):
        client.headers([1, 2])


def test_batch_answers_are_put_in_order(node):
    client = Client(node.url, 31337)
    client.head()
    node.reply = lambda payload: (200, json.dumps([FakeNode.ok(item, None) for item in payload][::-1]).encode())
    assert client.headers([7, 8]) == [None, None]
    assert client.batch([]) == []


def test_a_silent_node_times_out(node, monkeypatch):
    monkeypatch.setattr(client_module, "READ_TIMEOUT", 0.1)
    release = threading.Event()
    client = Client(node.url, 31337)
    node.reply = lambda payload: (release.wait(5), (200, b"{}"))[1]
    with pytest.raises(Unavailable, match=r"chain\.unavailable"):
        client.head()
    release.set()


def test_after_failures_in_a_row_the_node_is_left_alone_for_a_while(node, monkeypatch):
    client = Client(node.url, 31337)
    good, node.reply = node.reply, lambda payload: (500, b"")
    for _ in range(client_module.FAILURES_TO_OPEN):
        with pytest.raises(Unavailable):
            client.head()
    asked = len(node.requests)
    with pytest.raises(Unavailable, match="not asked for now"):
        client.head()
    assert len(node.requests) == asked

    node.reply = good
    client._open_until = 0.0  # the pause is over
    assert client.head() == 31337
    assert client._failures == 0


def test_after_the_pause_one_caller_asks_and_all_others_still_fail_at_once(node):
    client = Client(node.url, 31337)
    good, node.reply = node.reply, lambda payload: (500, b"")
    for _ in range(client_module.FAILURES_TO_OPEN):
        with pytest.raises(Unavailable):
            client.head()
    asked, release, arrived = len(node.requests), threading.Event(), threading.Event()

    def slow(payload):
        arrived.set()
        release.wait(5)
        return good(payload)

    node.reply = slow
    client._open_until = 0.0
    probe = threading.Thread(target=client.head)
    probe.start()
    assert arrived.wait(5)
    for _ in range(20):
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="not asked for now"):
            client.head()
        assert time.monotonic() - begun < 0.05
    assert len(node.requests) == asked + 1
    release.set()
    probe.join()
    assert client.head() == 31337


def test_a_probe_that_fails_leaves_the_node_alone_again(node):
    client = Client(node.url, 31337)
    node.reply = lambda payload: (503, b"")
    for _ in range(client_module.FAILURES_TO_OPEN):
        with pytest.raises(Unavailable):
            client.head()
    client._open_until = 0.0
    with pytest.raises(Unavailable, match="does not answer"):
        client.head()
    asked = len(node.requests)
    with pytest.raises(Unavailable, match="not asked for now"):
        client.head()
    assert len(node.requests) == asked


@pytest.mark.parametrize("result", [None, 7, "latest", {}, []])
@pytest.mark.parametrize("read", ["head", "headers", "block_receipts", "receipts", "nonce", "balance"])
def test_an_answer_of_the_wrong_form_is_unavailable_or_unknown(node, read, result):
    client = Client(node.url, 31337)
    client.head()
    node.reply = lambda payload: (
        200,
        json.dumps(
            [FakeNode.ok(item, result) for item in payload]
            if isinstance(payload, list)
            else FakeNode.ok(payload, result)
        ).encode(),
    )
    header = client_module.Header(1, "0x01", "0x00", 0, 0, 0, "0x" + "00" * 32)
    arguments = {
        "head": [],
        "headers": [[1]],
        "block_receipts": [[header]],
        "receipts": [["0x01"]],
        "nonce": ["0x01", 1],
        "balance": ["0x01", 1],
    }
    if not result and read in ("headers", "receipts"):
        assert getattr(client, read)(*arguments[read]) == [None]  # unknown
        return
    with pytest.raises(Unavailable, match=r"chain\.(rpc|incomplete)"):
        getattr(client, read)(*arguments[read])


@pytest.mark.parametrize("answer", [None, 5, "x", [None], [5, 6], [{"id": 0}, {"id": 0}], {"id": 0}])
def test_a_batch_of_the_wrong_form_is_unavailable(node, answer):
    client = Client(node.url, 31337)
    client.head()
    node.reply = lambda payload: (200, json.dumps(answer).encode())
    with pytest.raises(Unavailable):
        client.headers([1, 2])


@pytest.mark.parametrize("answer", [{"result": None}, {"result": 5}, {"error": {"code": 1, "message": "busy"}}])
def test_a_node_that_does_not_tell_its_chain_is_asked_for_nothing_else(node, answer):
    node.reply = lambda payload: (200, json.dumps({"jsonrpc": "2.0", "id": payload["id"], **answer}).encode())
    with pytest.raises(Unavailable, match=r"chain\.rpc"):
        Client(node.url, 31337).head()
    assert [request["method"] for request in node.requests] == ["eth_chainId"]


def test_of_two_nodes_the_lower_head_counts_and_only_blocks_that_both_show():
    rng = random.Random(5)
    one = SimulatedChain(rng)
    for _ in range(6):
        one.mine([])
    two = copy.deepcopy(one)
    one.mine([])
    for each in (one, two):
        each.drop(2)
        each.rng = random.Random(id(each))
        for _ in range(3):
            each.mine([])
    with (
        serving(lambda payload: Reply(ok(payload, one.answer))) as first,
        serving(lambda payload: Reply(ok(payload, two.answer))) as second,
    ):
        client = Client(f"{first},{second}", 31337)
        assert client.url == first
        assert client.head() == two.head == one.head - 1
        shown = [header and header.number for header in client.headers(range(9))]
        assert shown == [0, 1, 2, 3, 4, None, None, None, None]
        with pytest.raises(Unavailable, match=r"chain\.unavailable"):  # one that is away is no agreement
            Client(f"{first},http://127.0.0.1:1", 31337).head()


@pytest.mark.parametrize("reply", [(429, b""), (200, b"<html>"), None])
def test_a_key_in_the_nodes_url_is_in_no_error(node, reply):
    node.reply = lambda payload: reply
    url = f"{node.url if reply else 'http://127.0.0.1:1'}/v3/0123456789abcdef"
    with pytest.raises(Unavailable) as caught:
        Client(url, 31337).head()
    shown = "".join(traceback.format_exception(caught.value))
    assert "0123456789abcdef" not in shown
    assert "the node does not answer" in shown


def test_a_refused_connection_is_unavailable():
    with pytest.raises(Unavailable, match=r"chain\.unavailable"):
        Client("http://127.0.0.1:1", 31337).head()
