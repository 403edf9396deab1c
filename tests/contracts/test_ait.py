"""The token: minting by its owner alone, permits, votes."""

import pytest

from aitbc.chain.signing import Domain, Struct, digest
from aitbc.chain.testing import AIT, TEST_CHAIN_ID
from aitbc.core.errors import Conflict

PERMIT = Struct(
    "Permit",
    (("owner", "address"), ("spender", "address"), ("value", "uint256"), ("nonce", "uint256"), ("deadline", "uint256")),
)
FAR = 2**40


def test_only_the_owner_mints(world):
    with pytest.raises(Conflict, match="OwnableUnauthorizedAccount"):
        world.token.send(world.alice, "mint", world.alice.address, AIT)
    world.token.send(world.owner, "mint", world.alice.address, AIT)
    assert world.token.read("totalSupply") == world.balance(world.alice) == AIT
    assert (world.token.read("symbol"), world.token.read("decimals")) == ("AIT", 18)


def test_a_permit_signed_here_is_accepted_once(world):
    world.token.send(world.owner, "mint", world.alice.address, AIT)
    domain = Domain("AITBC Token", "1", TEST_CHAIN_ID, world.token.address)
    values = {"owner": world.alice.address, "spender": world.bob.address, "value": 5, "nonce": 0, "deadline": FAR}
    signature = bytes.fromhex(world.alice.signer.sign(digest(domain, PERMIT, values))[2:])
    args = [world.alice.address, world.bob.address, 5, FAR, signature[64], signature[:32], signature[32:64]]

    world.token.send(world.bob, "permit", *args)

    assert world.token.read("allowance", world.alice.address, world.bob.address) == 5
    with pytest.raises(Conflict, match="ERC2612InvalidSigner"):
        world.token.send(world.bob, "permit", *args)


def test_votes_follow_delegation_and_transfers(world):
    world.token.send(world.owner, "mint", world.alice.address, 10)
    assert world.token.read("getVotes", world.alice.address) == 0
    world.token.send(world.alice, "delegate", world.alice.address)
    world.token.send(world.alice, "transfer", world.bob.address, 4)
    assert world.token.read("getVotes", world.alice.address) == 6
