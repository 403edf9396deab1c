"""What the settlement contract lets in and out, against a real EVM."""

import pytest

from aitbc.chain import merkle
from aitbc.chain.addresses import clone_address
from aitbc.chain.signing import checksum_address, parse_address
from aitbc.chain.testing import AIT, PAYOUT, WITHDRAWAL, Actor, Deployed
from aitbc.core.errors import Conflict

from .conftest import CAP, THRESHOLD

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
    for roles in (
        (nobody, somebody, somebody),
        (somebody, nobody, somebody),
        (somebody, world.bob.address, nobody),
    ):
        with refused("ZeroValue"):
            Deployed.create(world.owner, "Settlement", world.token.address, world.owner.address, *roles, 1, 1)
