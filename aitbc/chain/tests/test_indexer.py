"""Blocks, forks and final events. After any reorganisation the state equals a fresh scan."""

import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from django.db import transaction

from aitbc.chain import indexer
from aitbc.chain.client import Client
from aitbc.chain.models import Block, FinalEvent, Log
from aitbc.chain.testing import AIT
from aitbc.chain.testing.net import DEPTH
from aitbc.core.errors import Unavailable

WHO = "0x" + "00" * 18 + "beef"
LOTS = 10**6  # final height far away


def held() -> tuple[list, list]:
    blocks = Block.objects.order_by("number").values_list("number", "hash", "parent", "timestamp")
    logs = Log.objects.order_by("block_id", "log_index")
    return list(blocks), list(
        logs.values_list("block_id", "tx_hash", "ordinal", "log_index", "address", "topics", "data")
    )


def follow(client: Client, final_height: int = -1) -> int:
    return indexer.follow(client, network="ait-devnet", final_height=final_height)


def fresh_scan(client: Client) -> tuple[list, list]:
    Block.objects.all().delete()
    follow(client)
    return held()


def test_blocks_are_linked_and_logs_complete(net, chain):
    tx_hash = net.mint(WHO, 5)
    net.mine(3)

    height = follow(chain)

    assert height == chain.head()
    blocks, logs = held()
    assert [b[0] for b in blocks] == list(range(1, height + 1))
    assert all(child[2] == parent[1] for parent, child in pairwise(blocks))
    assert [log[2] for log in logs if log[1] == tx_hash] == [0]


def test_reading_on_changes_nothing_that_is_there(net, chain):
    net.mint(WHO)
    follow(chain)
    before = held()
    follow(chain)
    assert held() == before
    net.mine()
    follow(chain)
    assert held()[0][:-1] == before[0]


def test_many_blocks_are_read_in_batches(net, chain, monkeypatch):
    monkeypatch.setattr(indexer, "BATCH", 7)
    net.mine(20)
    net.mint(WHO)
    assert follow(chain) == chain.head()
    assert Block.objects.count() == chain.head()
    snapshot = chain.call("evm_snapshot")
    net.mint(WHO)
    net.mine(15)
    follow(chain)
    chain.call("evm_revert", snapshot)
    for _ in range(20):
        net.mint(WHO, 7)
    follow(chain)
    assert held() == fresh_scan(chain)


@pytest.mark.parametrize("seed", range(12))
def test_state_after_random_forks_equals_a_fresh_scan(net, chain, seed):
    rng = random.Random(seed)
    snapshots: list[str] = []
    for _ in range(30):
        action = rng.choice(["mint", "mint", "mine", "snapshot", "fork", "follow"])
        if action == "mint":
            net.mint(WHO, rng.randrange(1, 10**6))
        elif action == "mine":
            net.mine(rng.randrange(1, 8))
        elif action == "snapshot":
            snapshots.append(chain.call("evm_snapshot"))
        elif action == "fork" and snapshots:
            cut = rng.randrange(len(snapshots))
            chain.call("evm_revert", snapshots[cut])
            del snapshots[cut:]
            for _ in range(rng.randrange(4)):
                net.mint(WHO, rng.randrange(1, 10**6))
        else:
            follow(chain)
    net.mine(40)  # longer than anything held
    follow(chain)

    assert held() == fresh_scan(chain)


def test_blocks_of_another_fork_are_never_put_upon_ours(net, chain):
    """The chain forks below our tip after we have looked at it, before we read on."""
    net.mint(WHO, 1)
    snapshot = chain.call("evm_snapshot")
    net.mint(WHO, 2)
    follow(chain)
    before = held()
    net.mine(3)

    class Forking(Client):
        asked = 0

        def headers(self, numbers):
            self.asked += 1
            if self.asked == 2:
                chain.call("evm_revert", snapshot)
                for amount in (3, 4, 5, 6):
                    net.mint(WHO, amount)
            return super().headers(numbers)

    follow(Forking(chain.url, chain.chain_id))
    assert held() == before
    follow(chain)
    assert held() == fresh_scan(chain)


def test_a_node_that_lags_behind_costs_nothing(net, chain):
    net.mine(4)
    follow(chain)
    before = held()

    class Lagging(Client):
        def head(self):
            return super().head() - 3

    lagging = Lagging(chain.url, chain.chain_id)
    assert follow(lagging) == chain.head() - 3
    assert held() == before


def test_a_missing_block_is_unknown_not_gone(net, chain):
    follow(chain)
    before = held()

    class Forgetful(Client):
        def headers(self, numbers):
            return [None for _ in numbers]

    net.mine(2)
    with pytest.raises(Unavailable, match=r"chain\.unknown_block"):
        follow(Forgetful(chain.url, chain.chain_id))
    assert held() == before

    class Holey(Client):
        def headers(self, numbers):
            return [header if header.number < hole else None for header in super().headers(numbers)]

    hole = chain.head()
    follow(Holey(chain.url, chain.chain_id))
    assert held()[0][:-1] == before[0]  # one of the two new blocks is known


def cut_logs(receipts: list) -> None:
    receipts[-1]["logs"].pop()


def cut_receipts(receipts: list) -> None:
    receipts.pop()


def other_amount(receipts: list) -> None:
    receipts[-1]["logs"][-1]["data"] = f"0x{6:064x}"


def other_account(receipts: list) -> None:
    receipts[-1]["logs"][-1]["topics"][2] = "0x" + "11" * 32


def failed(receipts: list) -> None:
    receipts[-1]["status"] = "0x0"


def malformed(receipts: list) -> None:
    del receipts[-1]["logs"]


@pytest.mark.parametrize("fault", [cut_logs, cut_receipts, other_amount, other_account, failed, malformed])
def test_logs_that_are_not_proven_complete_are_never_taken(net, chain, fault):
    net.mint(WHO, 5)
    follow(chain)
    before = held()
    net.mint(WHO, 7)

    class Cutting(Client):
        def batch(self, requests_):
            found = super().batch(requests_)
            if requests_[0][0] == "eth_getBlockReceipts":
                fault(found[-1])
            return found

    with pytest.raises(Unavailable, match=r"chain\.(incomplete|rpc)"):
        follow(Cutting(chain.url, chain.chain_id))
    assert held() == before
    follow(chain)
    assert len(held()[1]) == len(before[1]) + 1


def test_a_block_without_an_answer_for_its_receipts_is_not_taken(net, chain):
    net.mint(WHO)
    before = held()

    class NoReceipts(Client):
        def batch(self, requests_):
            return [
                None if method == "eth_getBlockReceipts" else answer
                for (method, _), answer in zip(requests_, super().batch(requests_), strict=True)
            ]

    with pytest.raises(Unavailable, match=r"chain\.incomplete"):
        follow(NoReceipts(chain.url, chain.chain_id))
    assert held() == before


def test_blocks_whose_bloom_has_nothing_of_ours_are_not_asked_for(net, chain):
    follow(chain)
    asked: list[str] = []

    class Counting(Client):
        def batch(self, requests_):
            asked.extend(method for method, _ in requests_)
            return super().batch(requests_)

    net.mine(20)
    net.mint(WHO)
    follow(Counting(chain.url, chain.chain_id))
    assert asked.count("eth_getBlockReceipts") == 1


def test_logs_of_many_transactions_in_one_block_are_complete_and_in_order(net, chain):
    sender = net.minter
    chain.call("evm_setAutomine", False)
    for nonce, amount in enumerate(range(1, 141), chain.nonce(sender.address, "pending")):
        fields = {
            "type": 2,
            "chainId": chain.chain_id,
            "nonce": nonce,
            "gas": 200_000,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 10**9,
            "value": 0,
            "to": net.token.address,
            "data": net.token.interface.call_data("mint", [WHO, str(amount)]),
        }
        chain.send_raw(sender.signer.sign_transaction(fields)[0])
    net.mine()
    follow(chain)
    logs = Log.objects.filter(block_id=chain.head()).order_by("log_index")
    assert [(e.log_index, int(e.data, 16)) for e in logs] == [(i, i + 1) for i in range(140)]


def test_a_block_below_finality_that_changes_halts(net, chain):
    snapshot = chain.call("evm_snapshot")
    net.mint(WHO)
    net.mine(DEPTH)
    follow(chain)
    before = held()
    chain.call("evm_revert", snapshot)
    for _ in range(DEPTH + 3):
        net.mint(WHO, 9)

    with pytest.raises(indexer.DeepReorganisation):
        follow(chain, final_height=chain.head() - 4)
    assert held() == before


def test_a_node_below_finality_is_behind(net, chain):
    follow(chain)
    with pytest.raises(Unavailable, match=r"chain\.behind"):
        follow(chain, final_height=LOTS)


# -- PostgreSQL ----------------------------------------------------------------------------------
def test_events_appear_only_at_their_depth_and_once(net, chain):
    worker = net.worker()
    tx_hash = net.mint(WHO, 5)
    block = chain.receipt(tx_hash).block_number
    mine = worker.client.call

    worker.tick()
    while chain.head() < block + DEPTH - 1:
        net.mine()
    worker.tick()
    seen = FinalEvent.objects.filter(tx_hash=tx_hash)
    if chain.head() < block + DEPTH:
        assert not seen.exists()
    mine("anvil_mine", "0x1")
    worker.tick()

    event = seen.get()
    assert (event.contract, event.name, event.block_number, event.ordinal) == ("AIT", "Transfer", block, 0)
    assert event.args == {"from": "0x" + "00" * 20, "to": WHO[:-4] + "bEEF", "value": "5"}
    net.settle(worker)
    assert seen.count() == 1


def test_a_rebuilt_chain_database_projects_nothing_twice(net):
    net.mint(WHO)
    worker = net.settle()
    events = list(FinalEvent.objects.values())
    assert events

    net.lose_chain_database()
    net.mint(WHO, 3)
    net.settle(worker)

    assert list(FinalEvent.objects.order_by("id").values())[: len(events)] == events[::-1]
    assert FinalEvent.objects.count() == len(events) + 1


def test_a_deep_reorganisation_stops_credits_and_is_told(net, chain, subscribe):
    credited = []
    subscribe("chain.event:AIT.Transfer", lambda event: credited.append(event.args["value"]))
    snapshot = chain.call("evm_snapshot")
    net.mint(WHO, 1)
    worker = net.settle()
    assert credited == ["1"]

    chain.call("evm_revert", snapshot)
    for _ in range(DEPTH + 8):
        net.mint(WHO, 2)
    while not net.status().halted and worker.tick():
        pass

    assert "was final" in net.status().halted
    assert worker.tick() is False
    net.mine(20)
    assert net.worker().tick() is False
    assert credited == ["1"]
    assert not FinalEvent.objects.filter(args__value="2").exists()


def test_a_chain_database_of_another_history_halts(net, chain):
    net.mint(WHO)
    worker = net.settle()
    with transaction.atomic():
        status = net.status()
        status.final_hash = "0x" + "99" * 32
        status.save()
    net.mine(DEPTH + 1)
    worker.tick()
    assert "not the one that was final" in net.status().halted


def test_what_is_handed_on_is_never_cut_between_the_logs_of_one_transaction(net, subscribe, monkeypatch):
    """A withdrawal is a Transfer and a Withdrawn: reserves compared in between would differ."""
    monkeypatch.setattr(indexer, "DISPATCH_EVENTS", 2)
    for value in range(5):
        FinalEvent.objects.create(
            network="ait-devnet",
            contract="AIT",
            name="Transfer",
            args={"value": str(value)},
            block_number=1,
            block_hash="0x" + "01" * 32,
            block_time=datetime(2026, 1, 1, tzinfo=UTC),
            tx_hash="0x" + ("0a" if value in (0, 4) else "0b") * 32,
            ordinal=value,
            log_index=value,
        )
    batches: list[list[str]] = []
    subscribe("chain.event:AIT.Transfer", lambda event: batches[-1].append(event.args["value"]))
    status = net.status() if net.worker() else None
    for _ in range(3):
        batches.append([])
        more = indexer.dispatch(status)
    assert batches == [["0", "1", "2", "3"], ["4"], []]
    assert more is False


def test_a_long_backlog_becomes_final_and_is_handed_on_in_one_round(net, chain, subscribe, monkeypatch):
    monkeypatch.setattr(indexer, "DISPATCH_EVENTS", 3)
    monkeypatch.setattr(indexer, "PROJECT_BLOCKS", 4)
    seen = []
    subscribe("chain.event:AIT.Transfer", lambda event: seen.append(int(event.args["value"])))
    for amount in range(1, 21):
        net.mint(WHO, amount)
    net.mine(DEPTH)
    net.worker().tick()
    assert seen == list(range(1, 21))
    assert net.status().final_height == chain.head() - DEPTH


def test_handlers_run_once_per_event_in_order(net, subscribe):
    seen = []
    subscribe("chain.event:AIT.Transfer", lambda event: seen.append(int(event.args["value"])))
    for amount in (3, 1, 2):
        net.mint(WHO, amount)
    net.settle()
    assert seen == [3, 1, 2]
    net.settle(net.worker())
    assert seen == [3, 1, 2]


def test_a_failing_handler_keeps_its_event_and_all_behind_it(net, subscribe):
    seen = []

    def handle(event):
        FinalEvent.objects.filter(pk=event.pk).update(log_index=99)  # rolled back with the failure
        if event.args["value"] == "2" and not repaired:
            raise ValueError("no such account")
        seen.append(int(event.args["value"]))

    repaired = []
    subscribe("chain.event:AIT.Transfer", handle)
    for amount in (1, 2, 3):
        net.mint(WHO, amount)
    worker = net.settle()
    worker.tick()

    assert seen == [1]
    assert "no such account" in net.status().problem
    assert FinalEvent.objects.get(args__value="2").log_index != 99

    repaired.append(True)
    worker.tick()
    assert seen == [1, 2, 3]
    assert net.status().problem == ""


def test_unknown_tokens_and_contracts_are_not_indexed(net, chain):
    from aitbc.chain.testing import Deployed

    stray = Deployed.create(net.minter, "AIT", net.minter.address)
    stray.send(net.minter, "mint", net.settlement.address, str(AIT))
    follow(chain)
    assert not Log.objects.filter(address=stray.address).exists()
