"""Receipts roots and blooms, beside published values and beside what the node of the tests commits to."""

import pytest

from aitbc.chain.proofs import bloom_bits, receipts_root
from aitbc.chain.signing import keccak
from aitbc.chain.tests.simulated import TRANSFER, address

EMPTY_TREE = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


def receipt(**changes: object) -> dict:
    fields = {"type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x5208", "logsBloom": "0x" + "00" * 256, "logs": []}
    return fields | changes


def test_no_receipts_are_the_empty_tree_of_ethereum():
    assert receipts_root([]) == EMPTY_TREE


def test_a_single_receipt_is_one_leaf_written_out_by_hand():
    bloom = "b90100" + "00" * 256
    body = "01" + "825208" + bloom + "c0"
    typed = "02" + "f90108" + body
    leaf = bytes.fromhex("f90112" + "822080" + "b9010c" + typed)
    assert len(typed) // 2 == 0x10C
    assert receipts_root([receipt()]) == "0x" + keccak(leaf).hex()


def test_a_legacy_receipt_has_no_type_byte():
    assert receipts_root([receipt(type="0x0")]) == receipts_root([receipt(type=None)])
    assert receipts_root([receipt(type="0x0")]) != receipts_root([receipt()])


def test_the_fields_of_a_rollups_deposit_are_part_of_it_since_they_have_a_version():
    plain = receipt(type="0x7e")
    assert receipts_root([receipt(type="0x7e", depositNonce="0x5")]) == receipts_root([plain])
    deposit = receipt(type="0x7e", depositNonce="0x0", depositReceiptVersion="0x1")
    assert receipts_root([plain]) != receipts_root([deposit])


@pytest.mark.parametrize("count", [2, 127, 128, 129, 300])
def test_every_receipt_and_its_place_counts(count):
    receipts = [receipt(cumulativeGasUsed=hex(21_000 * (i + 1))) for i in range(count)]
    whole = receipts_root(receipts)
    others = [receipts[:-1], receipts[1:], [*receipts, receipt()], receipts[::-1]]
    assert whole not in {receipts_root(other) for other in others}


def test_an_item_sets_at_most_three_bits_of_the_bloom():
    bits = bloom_bits(bytes.fromhex(TRANSFER[2:]))
    assert bits.bit_count() == 3
    assert 1 <= bloom_bits(bytes.fromhex(address(1)[2:])).bit_count() <= 3
    assert bits < 1 << 2048


def test_blooms_and_roots_are_those_of_a_real_node(net, chain):
    net.mint(address(7))
    for header in chain.headers(range(1, chain.head() + 1)):
        [receipts] = chain.block_receipts([header])
        logs = [entry for each in receipts for entry in each["logs"]]
        bits = 0
        for item in [item for entry in logs for item in (entry["address"], *entry["topics"])]:
            bits |= bloom_bits(bytes.fromhex(item[2:]))
        assert logs
        assert bits == header.bloom


def test_after_a_restart_the_node_still_proves_its_old_blocks(db_of_chain, settings, tmp_path):
    """A chain database that is rebuilt then reads from the first block on."""
    from aitbc.chain.client import Client
    from aitbc.chain.testing import TEST_CHAIN_ID, Actor, Deployed
    from aitbc.stack.anvil import Anvil

    node = Anvil(TEST_CHAIN_ID, tmp_path / "anvil")
    node.start()
    try:
        owner = Actor(Client(node.url, TEST_CHAIN_ID))
        token = Deployed.create(owner, "AIT", owner.address)
        token.send(owner, "mint", owner.address, "5")
        node.stop()
        node.start()
        client = Client(node.url, TEST_CHAIN_ID)
        headers = client.headers(range(1, client.head() + 1))
        found = client.block_receipts(headers)
        assert [len(receipts[0]["logs"]) for receipts in found] == [1, 1]
    finally:
        node.stop()
