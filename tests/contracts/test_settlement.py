"""What the settlement contract lets in and out, against a real EVM."""

import json
import subprocess
from pathlib import Path

import pytest

from aitbc.chain import merkle
from aitbc.chain.abi import Interface
from aitbc.chain.addresses import clone_address
from aitbc.chain.approvals import PAYOUT, WITHDRAWAL
from aitbc.chain.signing import address_of, checksum_address, new_private_key, parse_address
from aitbc.chain.testing import AIT, Actor, Deployed
from aitbc.core.errors import Conflict

from .conftest import CAP, THRESHOLD

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
ID = "0x" + "01" * 32
OTHER = "0x" + "02" * 32
USER = "0x" + "00112233445566778899aabbccddeeff" + "00" * 16
ROOT = "0x" + "33" * 32
NONE = "0x" + "00" * 32


def refused(reason: str):
    return pytest.raises(Conflict, match=rf"chain\.reverted.*{reason}")


def leaf(batch: str, index: int, account: str, amount: int) -> bytes:
    words = [bytes.fromhex(batch[2:]), index.to_bytes(32, "big"), bytes(12) + bytes.fromhex(account[2:])]
    return merkle.leaf(b"".join([*words, amount.to_bytes(32, "big")]))


def tree_of(batch: str, shares: list[tuple[str, int]]) -> merkle.Tree:
    return merkle.Tree([leaf(batch, i, account, amount) for i, (account, amount) in enumerate(shares)])


def hexes(proof: list[bytes]) -> list[str]:
    return ["0x" + node.hex() for node in proof]


# -- deposits ------------------------------------------------------------------------------------
def test_a_deposit_moves_tokens_and_gets_the_next_id(world):
    world.fund(world.alice, 5 * AIT)

    first = world.settlement.send(world.alice, "depositFor", USER, 2 * AIT)
    second = world.settlement.send(world.alice, "deposit", 3 * AIT)

    assert world.settlement.events(first) == [
        ("Deposited", {"depositId": "1", "user": USER, "from": world.alice.address, "amount": str(2 * AIT)})
    ]
    own = "0x" + "00" * 12 + world.alice.address[2:].lower()
    assert world.settlement.events(second)[0][1]["user"] == own
    assert world.settlement.events(second)[0][1]["depositId"] == "2"
    assert world.balance(world.settlement) == 5 * AIT


def test_an_empty_or_unfunded_deposit_is_refused(world):
    with refused("ZeroValue"):
        world.settlement.send(world.alice, "depositFor", USER, 0)
    with refused("ERC20InsufficientAllowance"):
        world.settlement.send(world.alice, "depositFor", USER, 1)
    assert world.settlement.read("depositCount") == 0


def test_a_deposit_address_receives_without_code_and_anyone_sweeps_it_to_the_contract(world):
    address = world.settlement.read("depositAddress", USER)
    world.token.send(world.owner, "mint", address, 7 * AIT)

    receipt = world.settlement.send(world.bob, "sweep", USER)

    assert world.balance(world.settlement) == 7 * AIT
    assert [name for name, _ in world.settlement.events(receipt)] == ["Swept"]
    world.token.send(world.owner, "mint", address, AIT)
    world.settlement.send(world.bob, "sweep", USER)  # the forwarder exists by now
    assert world.balance(world.settlement) == 8 * AIT


def test_an_empty_deposit_address_may_be_swept(world):
    receipt = world.settlement.send(world.bob, "sweep", USER)
    assert world.settlement.events(receipt)[0][1]["amount"] == "0"


def test_deposit_addresses_can_be_computed_without_a_node(world):
    computed = clone_address(
        deployer=world.settlement.address,
        implementation=world.settlement.read("FORWARDER"),
        salt=bytes.fromhex(USER[2:]),
    )
    assert computed == checksum_address(parse_address(world.settlement.read("depositAddress", USER)))
    assert computed.lower() != world.settlement.read("depositAddress", OTHER)


# -- anchors -------------------------------------------------------------------------------------
def test_an_anchor_moves_no_value_and_its_id_is_used_once(world):
    world.reserve(AIT)
    receipt = world.settlement.send(world.operator, "anchor", ID, ROOT, 3, OTHER)

    assert world.settlement.events(receipt) == [
        ("Anchored", {"batchId": ID, "root": ROOT, "count": "3", "heads": OTHER})
    ]
    assert [entry["address"] for entry in receipt.logs] == [world.settlement.address.lower()]
    assert world.balance(world.settlement) == AIT
    with refused("IdUsed"):
        world.settlement.send(world.operator, "anchor", ID, OTHER, 3, NONE)
    assert world.settlement.read("anchored", ID).hex() == ROOT[2:]


def test_only_the_operator_anchors_and_never_nothing(world):
    for actor in (world.alice, world.owner, world.guardian, world.approver):
        with refused("NotOperator"):
            world.settlement.send(actor, "anchor", ID, ROOT, 1, NONE)
    with refused("ZeroValue"):
        world.settlement.send(world.operator, "anchor", ID, NONE, 1, NONE)
    with refused("ZeroValue"):
        world.settlement.send(world.operator, "anchor", ID, ROOT, 0, NONE)
    assert world.settlement.read("anchored", ID) == bytes(32)


# -- withdrawals ---------------------------------------------------------------------------------
def test_a_withdrawal_pays_once_per_intent(world):
    world.reserve(50 * AIT)

    world.withdraw(ID, world.bob.address, 20 * AIT)

    assert world.settlement.read("used", ID) is True
    assert world.settlement.read("used", OTHER) is False
    with refused("IdUsed"):
        world.withdraw(ID, world.bob.address, 20 * AIT)
    with refused("IdUsed"):
        world.withdraw(ID, world.alice.address, 1)
    assert world.balance(world.bob) == 20 * AIT
    assert world.balance(world.settlement) == 30 * AIT


def test_only_the_operator_withdraws(world):
    world.reserve(AIT)
    for actor in (world.alice, world.owner, world.guardian, world.approver):
        with refused("NotOperator"):
            world.settlement.send(actor, "withdraw", ID, actor.address, 1, "0x")
    assert world.balance(world.settlement) == AIT
    assert world.settlement.read("used", ID) is False


def test_above_the_threshold_the_operator_alone_is_refused(world):
    world.reserve(THRESHOLD + 1)
    values = [ID, world.bob.address, THRESHOLD + 1]

    with refused("NotApproved"):
        world.settlement.send(world.operator, "withdraw", *values, "0x")
    with refused("NotApproved"):
        world.withdraw(*values, signer=world.operator)
    with refused("NotApproved"):
        world.withdraw(*values, signer=world.alice)
    assert world.balance(world.bob) == 0

    world.withdraw(*values)
    assert world.balance(world.bob) == THRESHOLD + 1


def test_an_approval_counts_for_its_payload_only(world):
    world.reserve(3 * THRESHOLD)
    given = {"intentId": ID, "to": world.bob.address, "amount": THRESHOLD + 1}
    approval = world.approval(WITHDRAWAL, given)

    for changed in ({"intentId": OTHER}, {"to": world.alice.address}, {"amount": THRESHOLD + 2}):
        values = given | changed
        with refused("NotApproved"):
            world.settlement.send(world.operator, "withdraw", *values.values(), approval)
    assert world.balance(world.bob) == 0


def test_the_daily_allowance_bounds_all_that_leaves_and_refills_evenly(world):
    world.reserve(3 * CAP)
    world.withdraw(ID, world.bob.address, CAP)

    with refused("DailyCapExceeded"):
        world.withdraw(OTHER, world.bob.address, AIT)
    with refused("DailyCapExceeded"):
        world.open_payout(OTHER, ROOT, AIT, 1)
    world.client.call("evm_increaseTime", 6 * 3600)
    world.client.call("evm_mine")

    quarter = world.settlement.read("availableOutflow")
    assert CAP // 4 <= quarter < CAP // 4 + CAP // 1000
    world.withdraw(OTHER, world.bob.address, CAP // 4)
    with refused("DailyCapExceeded"):
        world.withdraw("0x" + "05" * 32, world.bob.address, AIT)
    world.client.call("evm_increaseTime", 10 * 86400)
    world.client.call("evm_mine")
    assert world.settlement.read("availableOutflow") == CAP
    assert world.balance(world.bob) == CAP + CAP // 4


def test_nothing_leaves_that_is_not_there_or_promised(world):
    world.reserve(10 * AIT)
    with refused("ReserveTooLow"):
        world.withdraw(ID, world.bob.address, 11 * AIT)
    world.open_payout(ID, ROOT, 8 * AIT, 1)
    with refused("ReserveTooLow"):
        world.withdraw(ID, world.bob.address, 3 * AIT)
    with refused("ReserveTooLow"):
        world.open_payout(OTHER, ROOT, 3 * AIT, 1)

    world.withdraw(ID, world.bob.address, 2 * AIT)
    assert world.balance(world.settlement) == 8 * AIT


# -- payouts -------------------------------------------------------------------------------------
def test_each_provider_claims_his_leaf_once(world):
    world.reserve(60 * AIT)
    shares = [(world.alice.address, 10 * AIT), (world.bob.address, 20 * AIT), (world.owner.address, 30 * AIT)]
    tree = tree_of(ID, shares)
    world.open_payout(ID, "0x" + tree.root.hex(), 60 * AIT, 3)

    for index, (account, amount) in enumerate(shares):
        proof = hexes(tree.proof(index))
        receipt = world.settlement.send(world.guardian, "claim", ID, index, account, amount, proof)
        assert world.settlement.events(receipt) == [
            ("Claimed", {"batchId": ID, "index": str(index), "account": account, "amount": str(amount)})
        ]
        assert world.settlement.read("claimed", ID, index) is True
        with refused("AlreadyClaimed"):
            world.settlement.send(world.bob, "claim", ID, index, account, amount, proof)
    assert [world.balance(a) for a in (world.alice, world.bob, world.owner)] == [10 * AIT, 20 * AIT, 30 * AIT]
    assert world.balance(world.settlement) == world.settlement.read("promised") == 0


def test_a_claim_must_match_its_leaf(world):
    world.reserve(60 * AIT)
    shares = [(world.alice.address, 10 * AIT), (world.bob.address, 20 * AIT)]
    tree = tree_of(ID, shares)
    world.open_payout(ID, "0x" + tree.root.hex(), 30 * AIT, 2)
    good = [ID, 1, world.bob.address, 20 * AIT, hexes(tree.proof(1))]

    for place, wrong in ((0, OTHER), (1, 0), (1, 2), (2, world.alice.address), (3, 20 * AIT + 1), (4, [])):
        with refused("InvalidClaim"):
            world.settlement.send(world.bob, "claim", *good[:place], wrong, *good[place + 1 :])
    assert world.balance(world.bob) == 0
    world.settlement.send(world.bob, "claim", *good)
    assert world.balance(world.bob) == 20 * AIT


def test_leaves_that_sum_to_more_than_the_promise_cannot_touch_other_money(world):
    world.reserve(60 * AIT)
    shares = [(world.alice.address, 10 * AIT), (world.bob.address, 20 * AIT)]
    tree = tree_of(ID, shares)
    world.open_payout(ID, "0x" + tree.root.hex(), 15 * AIT, 2)

    world.settlement.send(world.alice, "claim", ID, 0, *shares[0], hexes(tree.proof(0)))
    with refused("InvalidClaim"):
        world.settlement.send(world.bob, "claim", ID, 1, *shares[1], hexes(tree.proof(1)))
    assert world.balance(world.settlement) == 50 * AIT


def test_a_payout_is_opened_once_by_the_operator_and_approved_above_the_threshold(world):
    world.reserve(CAP)
    world.open_payout(ID, ROOT, AIT, 1)
    with refused("IdUsed"):
        world.open_payout(ID, OTHER, AIT, 1)
    with refused("NotOperator"):
        world.settlement.send(world.alice, "openPayout", OTHER, ROOT, AIT, 1, "0x")
    with refused("NotApproved"):
        world.settlement.send(world.operator, "openPayout", OTHER, ROOT, THRESHOLD + 1, 1, "0x")
    values = {"batchId": OTHER, "root": ROOT, "total": THRESHOLD + 1, "count": 2}
    with refused("NotApproved"):
        approval = world.approval(PAYOUT, values)
        world.settlement.send(world.operator, "openPayout", OTHER, ROOT, THRESHOLD + 1, 1, approval)
    world.open_payout(OTHER, ROOT, THRESHOLD + 1, 1)
    assert world.settlement.read("promised") == THRESHOLD + 1 + AIT


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_every_proof_of_every_tree_shape_is_accepted(world, count):
    shares = [(world.alice.address, i + 1) for i in range(count)]
    tree = tree_of(ID, shares)
    world.reserve(AIT)
    world.open_payout(ID, "0x" + tree.root.hex(), sum(amount for _, amount in shares), count)
    for index, share in enumerate(shares):
        world.settlement.send(world.bob, "claim", ID, index, *share, hexes(tree.proof(index)))
    assert world.settlement.read("promised") == 0


# -- many claims at once -------------------------------------------------------------------------
Share = tuple[str, int]


def opened(world, shares: list[Share]) -> merkle.Tree:
    """A payout of `shares` under ID, with the reserve that it promises."""
    tree = tree_of(ID, shares)
    total = sum(amount for _, amount in shares)
    world.reserve(total)
    world.open_payout(ID, "0x" + tree.root.hex(), total, len(shares))
    return tree


def many(tree: merkle.Tree, shares: list[Share], indexes: list[int]) -> list:
    proof, flags = tree.multiproof(indexes)
    return [ID, [[index, *shares[index]] for index in indexes], hexes(proof), flags]


def fresh(count: int) -> list[Share]:
    return [(address_of(new_private_key()), i + 1) for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_any_selection_of_leaves_is_claimed_in_one_call(world, count, step):
    shares = fresh(count)
    tree = opened(world, shares)
    chosen = list(range(0, count, step))

    receipt = world.settlement.send(world.bob, "claimMany", *many(tree, shares, chosen))

    assert world.settlement.events(receipt) == [
        ("Claimed", {"batchId": ID, "index": str(i), "account": shares[i][0], "amount": str(i + 1)}) for i in chosen
    ]
    paid = [int(world.token.read("balanceOf", account)) for account, _ in shares]
    assert paid == [i + 1 if i in chosen else 0 for i in range(count)]
    assert [world.settlement.read("claimed", ID, i) for i in range(count)] == [i in chosen for i in range(count)]
    left = sum(amount for _, amount in shares) - sum(paid)
    assert world.settlement.read("promised") == left == world.balance(world.settlement)
    assert world.settlement.read("payouts", ID)[1] == left


def test_a_griefer_who_claims_one_leaf_first_does_not_stop_the_others(world):
    shares = fresh(4)
    tree = opened(world, shares)
    call = many(tree, shares, [0, 1, 2, 3])
    world.settlement.send(world.alice, "claim", ID, 2, *shares[2], hexes(tree.proof(2)))

    receipt = world.settlement.send(world.bob, "claimMany", *call)
    again = world.settlement.send(world.bob, "claimMany", *call)

    assert [args["index"] for _, args in world.settlement.events(receipt)] == ["0", "1", "3"]
    assert world.settlement.events(again) == []
    assert [int(world.token.read("balanceOf", account)) for account, _ in shares] == [1, 2, 3, 4]
    assert world.settlement.read("promised") == world.balance(world.settlement) == 0


def test_a_leaf_named_twice_in_one_call_is_paid_once(world):
    shares = fresh(2)
    tree = opened(world, shares)
    [_, [first, second], _, _] = many(tree, shares, [0, 1])
    with refused("InvalidClaim"):  # the twins are hashed together, and give another root
        world.settlement.send(world.bob, "claimMany", ID, [first, first, second], [], [True, True])
    shares = [(world.alice.address, 7), (world.alice.address, 7)]
    world.reserve(7)
    single = tree_of(OTHER, shares[:1])
    world.open_payout(OTHER, "0x" + single.root.hex(), 7, 1)
    with refused("InvalidClaim"):
        world.settlement.send(world.bob, "claimMany", OTHER, [[0, *shares[0]]] * 2, [], [True])
    assert world.settlement.read("promised") == 3 + 7


def test_one_false_leaf_among_many_pays_nobody(world):
    shares = fresh(5)
    tree = opened(world, shares)
    chosen = [0, 2, 3]
    batch, claims, proof, flags = many(tree, shares, chosen)
    wrong = [
        [OTHER, claims, proof, flags],
        [batch, [claims[0], claims[1], [3, claims[2][1], claims[2][2] + 1]], proof, flags],
        [batch, [claims[0], claims[1], [3, world.bob.address, claims[2][2]]], proof, flags],
        [batch, [claims[0], claims[1], [4, *claims[2][1:]]], proof, flags],
        [batch, [claims[0], claims[1], [5, *claims[2][1:]]], proof, flags],
        [batch, list(reversed(claims)), proof, flags],
        [batch, claims, [ROOT] * len(proof), flags],
    ]
    for call in wrong:
        with refused("InvalidClaim"):
            world.settlement.send(world.bob, "claimMany", *call)
    with refused("MerkleProofInvalidMultiproof"):
        world.settlement.send(world.bob, "claimMany", batch, claims, proof[:-1], flags)
    with refused("ZeroValue"):
        world.settlement.send(world.bob, "claimMany", batch, [], [ROOT], [])
    assert [world.settlement.read("claimed", ID, i) for i in range(5)] == [False] * 5
    assert world.settlement.read("promised") == world.balance(world.settlement) == 15
    world.settlement.send(world.bob, "claimMany", batch, claims, proof, flags)
    assert world.settlement.read("promised") == 15 - 1 - 3 - 4


def test_many_leaves_that_sum_to_more_than_the_promise_cannot_touch_other_money(world):
    shares = fresh(3)
    tree = tree_of(ID, shares)
    world.reserve(60)
    world.open_payout(ID, "0x" + tree.root.hex(), 5, 3)
    with refused("InvalidClaim"):
        world.settlement.send(world.bob, "claimMany", *many(tree, shares, [0, 1, 2]))
    world.settlement.send(world.bob, "claimMany", *many(tree, shares, [1, 2]))
    assert world.balance(world.settlement) == 55
    assert world.settlement.read("promised") == 0


def test_many_claims_wait_while_paused(world):
    shares = fresh(2)
    tree = opened(world, shares)
    world.settlement.send(world.guardian, "pause")
    with refused("EnforcedPause"):
        world.settlement.send(world.bob, "claimMany", *many(tree, shares, [0, 1]))
    assert world.settlement.read("promised") == 3


def test_amounts_beyond_what_is_stored_are_refused_not_cut(world):
    with refused("SafeCastOverflowedUintDowncast"):
        world.settlement.send(world.owner, "setLimits", 2**128, THRESHOLD)
    with refused("SafeCastOverflowedUintDowncast"):
        world.settlement.send(world.owner, "setLimits", CAP, 2**128)
    world.reserve(AIT)
    with refused("SafeCastOverflowedUintDowncast"):
        world.settlement.send(world.operator, "openPayout", ID, ROOT, 1, 2**128, "0x")
    assert world.settlement.read("dailyCap") == CAP
    assert world.settlement.read("promised") == 0


# -- a hostile token -----------------------------------------------------------------------------
@pytest.fixture(scope="session")
def hostile_interface(tmp_path_factory) -> Interface:
    folder = tmp_path_factory.mktemp("hostile")
    script, source = CONTRACTS / "build.mjs", "tests/contracts/HostileToken.sol"
    subprocess.run(["node", script, "--out", folder, "--source", source], check=True, timeout=110)
    return Interface("HostileToken", json.loads((folder / "HostileToken.json").read_text()))


def placed(actor: Actor, made: Interface, *args) -> Deployed:
    receipt = actor.send(None, made.creation(*args))
    found = Deployed(actor.client, "AIT", checksum_address(parse_address(receipt.contract)))
    found.interface = made
    return found


@pytest.fixture
def trap(world, hostile_interface):
    """Settlement over a token that calls back; its operator is that token, so that no role stops the call."""
    token = placed(world.owner, hostile_interface)
    roles = [token.address, world.approver.address, world.guardian.address]
    settlement = Deployed.create(world.owner, "Settlement", token.address, world.owner.address, *roles, CAP, CAP)
    world.client.call("anvil_impersonateAccount", token.address)
    token.send(world.owner, "mint", settlement.address, 100)
    token.send(world.owner, "mint", world.alice.address, 100)
    token.send(world.alice, "approve", settlement.address, 100)
    return token, settlement


@pytest.mark.parametrize("entry", ["depositFor", "sweep", "claim", "claimMany", "rescue"])
@pytest.mark.parametrize("inner", ["depositFor", "sweep", "withdraw", "openPayout", "claim", "claimMany"])
def test_a_token_that_calls_back_is_refused_at_every_door(world, trap, entry, inner):
    token, settlement = trap
    shares = fresh(2)
    tree = tree_of(ID, shares)
    calls = {
        "depositFor": [USER, 5],
        "sweep": [USER],
        "withdraw": [OTHER, world.bob.address, 5, "0x"],
        "openPayout": [OTHER, ROOT, 5, 1, "0x"],
        "claim": [ID, 0, *shares[0], hexes(tree.proof(0))],
        "claimMany": many(tree, shares, [0, 1]),
        "rescue": None,
    }
    world.client.call("anvil_setBalance", token.address, hex(10**18))
    opening = settlement.interface.call_data("openPayout", [ID, "0x" + tree.root.hex(), 3, 2, "0x"])
    sent = {"from": token.address, "to": settlement.address, "data": opening, "gas": hex(10**6)}
    world.client.call("eth_sendTransaction", sent)
    token.send(world.owner, "mint", settlement.read("depositAddress", USER), 9)
    stray = placed(world.owner, token.interface)
    stray.send(world.owner, "mint", settlement.address, 5)
    armed = stray if entry == "rescue" else token
    calls["rescue"] = [stray.address, world.bob.address, 5]
    armed.send(world.owner, "arm", settlement.address, settlement.interface.call_data(inner, calls[inner]))

    settlement.send(world.owner if entry == "rescue" else world.alice, entry, *calls[entry], gas=10**6)

    assert armed.read("answered") is False
    named = {signature.name: selector for selector, signature in settlement.interface.errors.items()}
    refusals = {named["ReentrancyGuardReentrantCall"]}
    if entry == "rescue" and inner in ("withdraw", "openPayout"):
        refusals = {named["NotOperator"]}  # another token than the one that is the operator here
    assert armed.read("lastError") in refusals
    paid = 3 if entry == "claimMany" else 1 if entry == "claim" else 0
    assert settlement.read("promised") == 3 - paid
    assert settlement.read("depositCount") == (1 if entry == "depositFor" else 0)


# -- rule ----------------------------------------------------------------------------------------
def test_the_guardian_can_only_pause_and_the_owner_resumes(world):
    world.reserve(10 * AIT)
    world.fund(world.alice, AIT)
    tree = tree_of(ID, [(world.bob.address, AIT)])
    world.open_payout(ID, "0x" + tree.root.hex(), AIT, 1)
    with refused("NotGuardian"):
        world.settlement.send(world.operator, "pause")

    world.settlement.send(world.guardian, "pause")

    with refused("EnforcedPause"):
        world.settlement.send(world.alice, "depositFor", USER, AIT)
    with refused("EnforcedPause"):
        world.withdraw(ID, world.bob.address, AIT)
    with refused("EnforcedPause"):
        world.open_payout(OTHER, ROOT, AIT, 1)
    with refused("EnforcedPause"):
        world.settlement.send(world.bob, "claim", ID, 0, world.bob.address, AIT, [])
    world.settlement.send(world.operator, "anchor", ID, ROOT, 1, NONE)  # moves no value
    with refused("OwnableUnauthorizedAccount"):
        world.settlement.send(world.guardian, "unpause")
    world.settlement.send(world.owner, "unpause")
    world.withdraw(ID, world.bob.address, AIT)
    assert world.balance(world.bob) == AIT


def test_rules_change_by_the_owner_only_and_ownership_in_two_steps(world):
    roles = [world.alice.address, world.bob.address, world.guardian.address]
    for actor in (world.operator, world.approver, world.guardian):
        with refused("OwnableUnauthorizedAccount"):
            world.settlement.send(actor, "setRoles", *roles)
        with refused("OwnableUnauthorizedAccount"):
            world.settlement.send(actor, "setLimits", CAP * 2, CAP * 2)
        with refused("OwnableUnauthorizedAccount"):
            world.settlement.send(actor, "transferOwnership", actor.address)

    world.settlement.send(world.owner, "transferOwnership", world.alice.address)
    assert world.settlement.read("owner") == world.owner.address.lower()
    with refused("OwnableUnauthorizedAccount"):
        world.settlement.send(world.bob, "acceptOwnership")
    world.settlement.send(world.alice, "acceptOwnership")
    world.settlement.send(world.alice, "setRoles", *roles)
    assert world.settlement.read("operator") == world.alice.address.lower()


def test_one_person_cannot_hold_both_keys(world):
    same = [world.alice.address, world.alice.address, world.guardian.address]
    with refused("NotApproved"):
        world.settlement.send(world.owner, "setRoles", *same)


def test_ownership_is_handed_over_but_never_given_up(world):
    with refused("OwnerNeeded"):
        world.settlement.send(world.owner, "renounceOwnership")
    with refused("OwnableUnauthorizedAccount"):
        world.settlement.send(world.guardian, "renounceOwnership")
    assert world.settlement.read("owner") == world.owner.address.lower()


def test_raising_the_cap_gives_no_sudden_allowance(world):
    world.reserve(3 * CAP)
    world.withdraw(ID, world.bob.address, CAP)
    world.settlement.send(world.owner, "setLimits", 10 * CAP, THRESHOLD)
    with refused("DailyCapExceeded"):
        world.withdraw(OTHER, world.bob.address, CAP)
    world.settlement.send(world.owner, "setLimits", 0, THRESHOLD)
    assert world.settlement.read("availableOutflow") == 0


def test_ait_itself_cannot_be_rescued_but_a_stray_token_can(world):
    stray = Deployed.create(world.owner, "AIT", world.owner.address)
    stray.send(world.owner, "mint", world.settlement.address, 5)
    world.reserve(AIT)
    with refused("TokenNotRescuable"):
        world.settlement.send(world.owner, "rescue", world.token.address, world.owner.address, 1)
    with refused("OwnableUnauthorizedAccount"):
        world.settlement.send(world.operator, "rescue", stray.address, world.operator.address, 5)
    world.settlement.send(world.owner, "rescue", stray.address, world.bob.address, 5)
    assert stray.read("balanceOf", world.bob.address) == 5
    assert world.balance(world.settlement) == AIT


def test_a_constructor_without_roles_is_refused(world):
    nobody = "0x" + "00" * 20
    somebody = Actor(world.client).address
    for roles in ((nobody, somebody, somebody), (somebody, nobody, somebody), (somebody, world.bob.address, nobody)):
        with refused("ZeroValue"):
            Deployed.create(world.owner, "Settlement", world.token.address, world.owner.address, *roles, 1, 1)
