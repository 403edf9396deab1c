"""Receipts become batches, batches become anchors; nothing moves and nothing is lost."""

from uuid import uuid4

import pytest

from aitbc.chain import merkle, signing
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import FinalEvent, Intent
from aitbc.core.ids import uuid7
from apps.trading.models import Account, JournalBlock, ReceiptLeaf, SettlementBatch
from apps.trading.selectors.settlement import anchors
from apps.trading.services import journal
from apps.trading.services.deposits import deposit_address
from apps.trading.services.settlement import finish_batch, push_leaf, seal_batch
from apps.trading.tests.books import sealed


def push(count: int) -> list:
    jobs = [uuid7() for _ in range(count)]
    for job in jobs:
        push_leaf(job_id=job, leaf=signing.keccak(job.bytes))
    return jobs


def test_a_job_has_one_leaf(net):
    job = uuid7()
    push_leaf(job_id=job, leaf=b"\1" * 32)
    push_leaf(job_id=job, leaf=b"\2" * 32)
    assert ReceiptLeaf.objects.get().leaf == "0x" + "01" * 32


def test_nothing_is_sealed_before_it_is_due(net):
    assert seal_batch(limit=10, older_than=0) is None
    push(3)
    assert seal_batch(limit=10, older_than=60) is None
    assert SettlementBatch.objects.count() == 0
    assert Intent.objects.count() == 0


def test_a_full_batch_is_sealed_and_the_rest_waits(net):
    jobs = push(7)
    batch = seal_batch(limit=5, older_than=60)

    assert (batch.receipts, batch.state) == (5, "sealed")
    leaves = [signing.keccak(job.bytes) for job in jobs[:5]]
    assert batch.root == "0x" + merkle.root(leaves).hex()
    assert seal_batch(limit=5, older_than=60) is None
    assert ReceiptLeaf.objects.filter(batch=None).count() == 2


def test_every_receipt_proves_itself_once_the_anchor_is_final(net, subscribe):
    jobs = push(6)
    batch = seal_batch(limit=6)
    assert anchors(jobs) == {}

    net.settle()

    batch.refresh_from_db()
    receipt = net.client.receipt(batch.tx_hash)
    assert batch.state == "final"
    assert (batch.block, batch.gas_used) == (receipt.block_number, receipt.gas_used)
    assert "0x" + net.settlement.read("anchored", bytes32(batch.pk)).hex() == batch.root
    found = anchors(jobs)
    assert set(found) == set(jobs)
    for job, anchor in found.items():
        proof = [bytes.fromhex(node[2:]) for node in anchor.proof]
        assert anchor.leaf == signing.keccak(job.bytes)
        assert merkle.verify(anchor.leaf, proof, bytes.fromhex(batch.root[2:]))
        assert (anchor.root, anchor.tx_hash, anchor.block) == (batch.root, batch.tx_hash, batch.block)


def test_an_anchor_moves_no_value(net):
    net.mint(net.settlement.address, 5)
    net.settle()
    before = dict(Account.objects.values_list("pk", "posted"))
    push(3)
    seal_batch(limit=3)
    net.settle()
    assert dict(Account.objects.values_list("pk", "posted")) == before
    assert net.balance(net.settlement.address) == 5


def test_receipts_of_a_failed_anchor_join_the_next_batch(net):
    jobs = push(2)
    failed = seal_batch(limit=2)
    intent = Intent.objects.get()
    intent.state = Intent.State.FAILED
    finish_batch(intent)

    failed.refresh_from_db()
    assert (failed.state, failed.tx_hash) == ("failed", None)
    again = seal_batch(limit=2)
    assert again.pk != failed.pk
    assert again.root == failed.root
    Intent.objects.filter(pk=intent.pk).delete()
    net.settle()
    assert set(anchors(jobs)) == set(jobs)


def test_the_journals_head_is_anchored_and_before_the_first_block_zero(committed_net):
    net = committed_net
    assert journal.head() == journal.NO_HEAD
    net.mint(deposit_address(user=None), 5)
    net.settle()
    assert sealed() == 1
    head = journal.head()
    push(1)
    seal_batch(limit=1)
    net.settle()

    assert head == str(JournalBlock.objects.get().head) != journal.NO_HEAD
    assert FinalEvent.objects.get(name="Anchored").args["heads"] == head


@pytest.mark.usefixtures("committed_net")
def test_sealers_at_once_never_share_a_receipt(in_threads):
    push(40)
    batches = in_threads(lambda _: seal_batch(limit=10), 4)

    sealed = [batch for batch in batches if batch]
    assert sum(batch.receipts for batch in sealed) == ReceiptLeaf.objects.exclude(batch=None).count()
    for batch in sealed:
        leaves = list(batch.leaves.order_by("position"))
        assert [leaf.position for leaf in leaves] == list(range(batch.receipts))
        assert batch.root == "0x" + merkle.root([bytes.fromhex(leaf.leaf[2:]) for leaf in leaves]).hex()


def test_an_unknown_batch_is_an_error(net):
    intent = Intent(args=[bytes32(uuid4())], state=Intent.State.FINAL)
    with pytest.raises(SettlementBatch.DoesNotExist):
        finish_batch(intent)
