"""Merkle trees whose proofs OpenZeppelin's MerkleProof accepts: pairs are sorted before hashing.

A tree is a complete binary tree in an array of 2n - 1 nodes (root first, leaves at the end in
reverse), the shape of OpenZeppelin's merkle-tree package, so that no leaf is ever duplicated to
fill a row. Leaves must be hashes of something that is not 64 bytes long, else an inner node could
pass for a leaf: `leaf` hashes twice, as the contracts do.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from aitbc.chain.signing import keccak
from aitbc.core.errors import Invalid

LEAF_SIZE: Final = 32


def leaf(encoded: bytes) -> bytes:
    """keccak(keccak(encoded)), the leaf of an ABI-encoded tuple."""
    return keccak(keccak(encoded))


def _pair(a: bytes, b: bytes) -> bytes:
    return keccak(a + b if a < b else b + a)


class Tree:
    """The whole tree over `leaves` (32 bytes each, at least one, kept in order)."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves or any(len(item) != LEAF_SIZE for item in leaves):
            raise Invalid("merkle.leaves", "a tree needs at least one leaf, each of 32 bytes")
        nodes = [b""] * (len(leaves) - 1) + list(reversed(leaves))
        for i in range(len(leaves) - 2, -1, -1):
            nodes[i] = _pair(nodes[2 * i + 1], nodes[2 * i + 2])
        self._nodes = nodes
        self._size = len(leaves)

    @property
    def root(self) -> bytes:
        return self._nodes[0]

    def proof(self, index: int) -> list[bytes]:
        """Siblings from leaf `index` up to the root."""
        if not 0 <= index < self._size:
            raise Invalid("merkle.index", "no such leaf")
        node = len(self._nodes) - 1 - index
        path = []
        while node > 0:
            path.append(self._nodes[node + 1 if node % 2 else node - 1])
            node = (node - 1) // 2
        return path

    def multiproof(self, indexes: Sequence[int]) -> tuple[list[bytes], list[bool]]:
        """(proof, flags) for the leaves at `indexes`, strictly ascending and not empty, as OpenZeppelin's
        multiProofVerify takes them; the leaves are given to it in the same order."""
        if not indexes or list(indexes) != sorted(set(indexes) & set(range(self._size))):
            raise Invalid("merkle.index", "the indexes of leaves ascend and exist")
        queue = deque(len(self._nodes) - 1 - index for index in indexes)  # the deepest node first
        path, flags = [], []
        while queue[0] > 0:
            node = queue.popleft()
            sibling = node + 1 if node % 2 else node - 1
            paired = bool(queue) and queue[0] == sibling
            flags.append(paired)
            if paired:
                queue.popleft()
            else:
                path.append(self._nodes[sibling])
            queue.append((node - 1) // 2)
        return path, flags


def root(leaves: Sequence[bytes]) -> bytes:
    return Tree(leaves).root


def proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """One proof; for many of one tree build a `Tree`, this one hashes all leaves again."""
    return Tree(leaves).proof(index)


def verify(leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `leaf` lies under `root`; false for any node that is not 32 bytes."""
    if any(len(node) != LEAF_SIZE for node in (leaf, root, *proof)):
        return False
    for sibling in proof:
        leaf = _pair(leaf, sibling)
    return leaf == root
