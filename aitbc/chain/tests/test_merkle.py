"""Merkle trees; that the contract accepts the proofs is shown in tests/contracts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitbc.chain import merkle
from aitbc.chain.signing import keccak
from aitbc.core.errors import Invalid

leaf_lists = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)


def _leaves(count: int) -> list[bytes]:
    return [merkle.leaf(bytes([i])) for i in range(count)]


@given(leaf_lists)
def test_every_leaf_proves_itself(leaves):
    tree = merkle.Tree(leaves)
    for i, leaf in enumerate(leaves):
        assert tree.proof(i) == merkle.proof(leaves, i)
        assert merkle.verify(leaf, tree.proof(i), merkle.root(leaves))


@given(leaf_lists, st.data())
def test_a_flipped_bit_anywhere_is_refused(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    nodes = [leaves[index], *merkle.proof(leaves, index), merkle.root(leaves)]
    node = data.draw(st.integers(0, len(nodes) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = int.from_bytes(nodes[node], "big") ^ (1 << bit)
    nodes[node] = flipped.to_bytes(32, "big")

    assert not merkle.verify(nodes[0], nodes[1:-1], nodes[-1])


def test_roots_of_known_shapes():
    a, b, c = sorted(_leaves(3))
    assert merkle.root([a]) == a
    assert merkle.proof([a], 0) == []
    assert merkle.root([b, a]) == keccak(a + b)
    ab = keccak(a + b)
    assert merkle.root([a, b, c]) == keccak(min(ab, c) + max(ab, c))


def test_a_leaf_of_another_tree_is_refused():
    ours, theirs = _leaves(5), [merkle.leaf(b"other" + bytes([i])) for i in range(5)]
    assert not merkle.verify(theirs[0], merkle.proof(ours, 0), merkle.root(ours))


def test_the_order_of_leaves_matters_but_not_that_of_a_pair():
    leaves = _leaves(4)
    assert merkle.root(leaves) != merkle.root([leaves[0], leaves[2], leaves[1], leaves[3]])


@pytest.mark.parametrize("leaves", [[], [b""], [bytes(31)], [bytes(32), bytes(33)]])
def test_malformed_leaves_are_refused(leaves):
    with pytest.raises(Invalid, match=r"merkle\.leaves"):
        merkle.root(leaves)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_leaf_out_of_range_is_refused(index):
    with pytest.raises(Invalid, match=r"merkle\.index"):
        merkle.proof(_leaves(3), index)


def test_nodes_of_a_wrong_size_never_verify():
    leaves = _leaves(2)
    proof, root = merkle.proof(leaves, 0), merkle.root(leaves)
    assert merkle.verify(leaves[0], proof, root)
    assert not merkle.verify(leaves[0] + b"\0", proof, root)
    assert not merkle.verify(leaves[0], [proof[0][:31]], root)
    assert not merkle.verify(leaves[0], proof, root + b"\0")


@given(leaf_lists, st.data())
def test_many_leaves_share_one_proof(leaves, data):
    """Rebuilt as OpenZeppelin's `processMultiProof` does it."""
    tree = merkle.Tree(leaves)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(leaves) - 1), min_size=1)))
    proof, flags = tree.multiproof(chosen)

    queue, path = [leaves[index] for index in chosen], iter(proof)
    for flag in flags:
        first = queue.pop(0)
        second = queue.pop(0) if flag else next(path)
        queue.append(keccak(min(first, second) + max(first, second)))
    assert queue == [tree.root]
    assert next(path, None) is None
    assert len(proof) <= sum(len(tree.proof(index)) for index in chosen)


@pytest.mark.parametrize("indexes", [[], [1, 0], [0, 0], [3], [-1]])
def test_a_proof_of_many_takes_each_existing_leaf_once_in_order(indexes):
    with pytest.raises(Invalid, match=r"merkle\.index"):
        merkle.Tree(_leaves(3)).multiproof(indexes)
