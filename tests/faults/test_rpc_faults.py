"""C2: a node that fails in a fifth of all calls, in every way a node fails, delays all and doubles nothing.

The proxy stands before a real anvil; what was paid is asked of anvil itself.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import requests
from structlog.testing import capture_logs

from aitbc.chain import client as client_module
from aitbc.chain import keystore
from aitbc.chain import worker as worker_module
from aitbc.chain.client import Client
from aitbc.chain.models import FinalEvent, Intent, SignedTransaction
from aitbc.chain.testing import AIT
from aitbc.chain.testing.net import DEPTH, chain, db_of_chain, net, node_url, subscribe  # noqa: F401
from aitbc.chain.tests.rpc_server import Reply, serving
from aitbc.core.errors import Unavailable

BOB = "0x" + "00" * 18 + "b0b0"
GWEI = 10**9
HEALED_SECONDS = 300
LOST = ("timeout", "429", "500", "503", "gone", "cut", "html", "outage")
WRONG = ("null", "error", "truncated", "stale", "partial")
FAULTS = (*LOST, *WRONG)


class FaultyNode:
    """A proxy before `url`. Lost calls reach the node or do not, by chance; `rate` is that of faults."""

    def __init__(self, url: str, rng: random.Random, rate: float) -> None:
        self.url, self.rng, self.rate = url, rng, rate
        self.calls, self.seen = 0, Counter[str]()
        self.lag, self.lagging, self.outage = 0, 0, 0
        self.session = requests.Session()

    def reply(self, payload: Any) -> Reply:
        self.calls += 1
        if self.outage:
            self.outage -= 1
            return Reply(status=503)
        items = payload if isinstance(payload, list) else [payload]
        fault = self.rng.choice(FAULTS) if self.rng.random() < self.rate else ""
        if items[0]["method"] == "eth_chainId" and self.rng.random() < self.rate:
            self.seen["wrong chain"] += 1
            return self._json(payload, [{"jsonrpc": "2.0", "id": items[0]["id"], "result": "0x1"}])
        if fault:
            self.seen[fault] += 1
        if fault in LOST and self.rng.random() < 0.5:  # it never arrives
            return self._lost(fault, b"")
        answers = self.session.post(self.url, json=items).json()
        answers.sort(key=lambda answer: answer["id"])
        if self.lagging:
            self.lagging -= 1
            self._age(items, answers)
        if fault in LOST:
            return self._lost(fault, self._json(payload, answers).body)
        if fault:
            getattr(self, "_" + fault)(items, answers)
        return self._json(payload, answers)

    def heal(self) -> None:
        self.rate = self.outage = self.lagging = 0

    @staticmethod
    def _json(payload: Any, answers: list[Any]) -> Reply:
        return Reply(json.dumps(answers if isinstance(payload, list) else answers[0]).encode())

    def _lost(self, fault: str, body: bytes) -> Reply:
        if fault == "outage":
            self.outage = 7
        if fault == "timeout":
            return Reply(body, delay=4 * client_module.READ_TIMEOUT)
        if fault in ("gone", "cut"):
            return Reply(body if fault == "cut" else b"", cut=True)
        return Reply(b"<html>busy</html>", status=int(fault) if fault.isdigit() else 200)

    def _null(self, items: list[Any], answers: list[Any]) -> None:
        for item, answer in zip(items, answers, strict=True):
            if item["method"] != "eth_sendRawTransaction":
                answer.pop("error", None)
                answer["result"] = None

    def _error(self, items: list[Any], answers: list[Any]) -> None:
        for answer in answers:
            answer.pop("result", None)
            answer["error"] = {"code": -32000, "message": "header not found"}

    def _truncated(self, items: list[Any], answers: list[Any]) -> None:
        for item, answer in zip(items, answers, strict=True):
            if item["method"] == "eth_getBlockReceipts" and answer.get("result"):
                kept = self.rng.choice(answer["result"])["logs"]
                del kept[len(kept) // 2 :]

    def _partial(self, items: list[Any], answers: list[Any]) -> None:
        if len(answers) > 1:
            answers.pop(self.rng.randrange(len(answers)))

    def _stale(self, items: list[Any], answers: list[Any]) -> None:
        self.lag, self.lagging = self.rng.randrange(1, 2 * DEPTH), 6
        self._age(items, answers)

    def _age(self, items: list[Any], answers: list[Any]) -> None:
        """The head of a moment ago: later blocks and receipts do not exist yet."""
        head = int(self.session.post(self.url, json=self._ask("eth_blockNumber")).json()["result"], 16)
        for item, answer in zip(items, answers, strict=True):
            result = answer.get("result")
            if item["method"] == "eth_blockNumber":
                answer["result"] = hex(head - self.lag)
            elif item["method"] == "eth_getBlockByNumber" and int(item["params"][0], 16) > head - self.lag:
                answer["result"] = None
            elif item["method"] == "eth_getTransactionReceipt" and result:
                answer["result"] = None if int(result["blockNumber"], 16) > head - self.lag else result

    @staticmethod
    def _ask(method: str) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": []}


def withdrawn(direct: Client, settlement: str) -> Counter[str]:
    """How often the chain itself paid each intent id."""
    topic = next(
        "0x" + key.hex()
        for key, event in worker_module.interface("Settlement").events.items()
        if event.name == "Withdrawn"
    )
    query = {"fromBlock": "0x0", "toBlock": "latest", "address": settlement, "topics": [topic]}
    return Counter(entry["topics"][1] for entry in direct.call("eth_getLogs", query))


def settle_within(net_: Any, worker: Any, until: Callable[[], bool], seconds: float) -> float:
    begun = time.monotonic()
    while not until():
        assert time.monotonic() - begun < seconds, list(Intent.objects.open().values("state", "error"))
        net_.mine()
        try:
            worker.tick()
        except Unavailable:
            time.sleep(0.01)
    return time.monotonic() - begun


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("seed", "calls"), [(1, 700), pytest.param(2, 10_000, marks=pytest.mark.slow)], ids=["seed1", "seed2-full"]
)
def test_a_fifth_of_all_calls_failing_pays_nothing_twice_and_leaves_nothing_stuck(
    net,  # noqa: F811
    subscribe,  # noqa: F811
    settings,
    monkeypatch,
    seed,
    calls,
):
    rng = random.Random(seed)
    resolved: Counter[Any] = Counter()
    subscribe("chain.intent:test.withdraw", lambda intent: resolved.update([(intent.pk, intent.state)]))
    net.mint(net.settlement.address, 10_000 * AIT)
    net.settle()
    settings.CHAIN_EMBEDDED = False
    net.client.call("evm_setAutomine", False)
    monkeypatch.setattr(client_module, "READ_TIMEOUT", 0.05)
    monkeypatch.setattr(client_module, "OPEN_SECONDS", 0.05)
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 0.5)
    proxy, intents = FaultyNode(net.client.url, rng, rate=0.2), []

    with serving(proxy.reply) as url, capture_logs():
        worker = net.worker(Client(url, net.client.chain_id))
        while proxy.calls < calls:
            if rng.random() < 0.2:
                intents.append(net.withdrawal(BOB))
            disturb(net, rng)
            try:
                worker.tick()
            except Unavailable:
                pass
            assert net.status().halted == ""
            if rng.random() < 0.05:
                assert max(withdrawn(net.client, net.settlement.address).values(), default=1) == 1
        proxy.heal()
        took = settle_within(net, worker, lambda: not Intent.objects.open().exists(), HEALED_SECONDS)

    assert took < HEALED_SECONDS
    assert set(proxy.seen) == {*FAULTS, "wrong chain"}
    paid = withdrawn(net.client, net.settlement.address)
    assert paid == Counter(intent.args[0] for intent in intents)
    assert resolved == Counter((intent.pk, "final") for intent in intents)
    assert net.balance(BOB) == len(intents) * AIT
    sender = keystore.load("operator").address
    assert net.client.nonce(sender, net.client.head()) == len(intents)
    nonces = SignedTransaction.objects.filter(sender=sender).values_list("intent_id", "nonce").distinct()
    assert len(nonces) == len(intents) == len({nonce for _, nonce in nonces})
    assert FinalEvent.objects.filter(name="Withdrawn").count() == len(intents)


def disturb(net_: Any, rng: random.Random) -> None:
    """Blocks come or do not, fees jump, and the pool forgets what it was given."""
    dice = rng.random()
    if dice < 0.5:
        net_.mine()
    elif dice < 0.55:
        net_.client.call("anvil_setNextBlockBaseFeePerGas", hex(rng.choice((1, 5, 40)) * GWEI))
        net_.mine()
    elif dice < 0.65 and (open_ := Intent.objects.open().filter(tx_hash__isnull=False).first()):
        net_.client.call("anvil_dropTransaction", open_.tx_hash)
