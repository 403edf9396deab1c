"""Rule 6: the embedded chain mines only while something is not final, and no faster than a block a second."""

import time

from aitbc.chain.testing.net import DEPTH
from aitbc.chain.worker import BLOCK_SECONDS, Worker


def test_an_idle_chain_grows_by_nothing(net):
    worker = net.settle()
    head = net.client.head()
    for _ in range(10):
        worker.tick()
    assert net.client.head() == head


def test_blocks_come_one_a_second_and_end_with_finality(net):
    net.settle()
    worker = Worker(net.client)
    head, started = net.client.head(), time.monotonic()
    intent = net.anchor()
    while worker.tick():
        assert net.client.head() - head <= 1 + (time.monotonic() - started) / BLOCK_SECONDS
        time.sleep(0.02)

    intent.refresh_from_db()
    assert intent.state == "final"
    assert time.monotonic() - started >= DEPTH * BLOCK_SECONDS
    assert net.client.head() == intent.block_number + DEPTH
