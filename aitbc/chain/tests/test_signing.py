"""Signatures and EIP-712 hashes, held against eth_account."""

import timeit

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak as reference_keccak
from eth_utils import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from aitbc.chain import signing
from aitbc.core.errors import Invalid

WORK = signing.Struct(
    "WorkStatement", (("job", "bytes32"), ("miner", "address"), ("units", "uint256"), ("kind", "string"))
)
# A key that web3's documentation publishes together with its address.
KEY = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
GOOD = {"job": bytes(32), "miner": ADDRESS, "units": 2, "kind": "x"}
# About 70 alone on a machine; a curve in pure Python takes 4,000. Between them on a busy one.
BUDGET_US = 1000.0

bytes32 = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(signing.checksum_address)
uint256 = st.integers(0, 2**256 - 1)
keys = st.integers(1, signing.ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
statements = st.fixed_dictionaries({"job": bytes32, "miner": addresses, "units": uint256, "kind": st.text()})


@given(bytes32)
def test_checksum_is_that_of_eth_utils(data):
    assert signing.checksum_address(data[:20]) == to_checksum_address(data[:20])
    assert signing.keccak(data) == reference_keccak(data)


@given(statements, st.text(), uint256, st.none() | addresses)
def test_digest_equals_eth_accounts_typed_data(values, name, chain_id, contract):
    domain = signing.Domain(name, "1", chain_id, contract)
    types = {WORK.name: [{"name": field, "type": kind} for field, kind in WORK.fields]}
    domain_data = {"name": name, "version": "1", "chainId": chain_id}
    if contract is not None:
        domain_data["verifyingContract"] = contract

    reference = encode_typed_data(domain_data, types, values)

    assert signing.digest(domain, WORK, values) == reference_keccak(
        b"\x19" + reference.version + reference.header + reference.body
    )


@given(keys, bytes32)
def test_signature_and_recovery_equal_eth_accounts(key, digest):
    signature = signing.sign(key, digest)

    assert signature == "0x" + bytes(Account.unsafe_sign_hash(digest, key).signature).hex()
    assert signing.recover(digest, signature) == signing.address_of(key) == Account.from_key(key).address


def test_address_of_a_published_key():
    assert signing.address_of(KEY) == ADDRESS


def test_any_changed_field_changes_the_signer():
    domain = signing.Domain("AITBC", "1", 31337)
    values = GOOD
    signature = signing.sign(KEY, signing.digest(domain, WORK, values))
    assert signing.recover(signing.digest(domain, WORK, values), signature) == ADDRESS

    for changed in ({"miner": "0x" + "12" * 20}, {"units": 3}, {"kind": "y"}, {"job": b"\1" * 32}):
        assert signing.recover(signing.digest(domain, WORK, values | changed), signature) != ADDRESS
    other = signing.Domain("AITBC", "1", 31338)
    assert signing.recover(signing.digest(other, WORK, values), signature) != ADDRESS


def _high_s(signature: str) -> str:
    raw = bytes.fromhex(signature[2:])
    s = signing.ORDER - int.from_bytes(raw[32:64], "big")
    return "0x" + (raw[:32] + s.to_bytes(32, "big") + bytes([55 - raw[64]])).hex()


def test_recover_refuses_what_is_no_canonical_signature():
    digest = signing.keccak(b"message")
    good = signing.sign(KEY, digest)
    twin = _high_s(good)
    raw = bytes.fromhex(twin[2:])
    assert Account._recover_hash(digest, signature=raw) == ADDRESS  # a valid point, refused all the same

    bad = ["", "0x", good[2:], good + "00", good[:-2] + "00", good[:-2] + "1d", "0x" + "zz" * 65, good + "\n"]
    bad += [twin, "0x" + "00" * 64 + "1b", "0x" + "ff" * 32 + "01" * 32 + "1b", None, bytes(65)]
    for signature in bad:
        with pytest.raises(Invalid) as caught:
            signing.recover(digest, signature)
        assert caught.value.code == "signing.signature"


@pytest.mark.parametrize(
    "values",
    [
        {"job": bytes(31)},
        {"job": "0x" + "0g" * 32},
        {"units": 2**256},
        {"units": -1},
        {"units": True},
        {"units": 1.0},
        {"kind": b"x"},
        {"extra": 1},
    ],
)
def test_ill_typed_values_are_refused(values):
    assert len(WORK.hash(GOOD)) == 32
    with pytest.raises(Invalid, match=r"signing\.value"):
        WORK.hash(GOOD | values)


def test_a_missing_field_and_a_bad_address_are_refused():
    with pytest.raises(Invalid, match=r"signing\.value"):
        WORK.hash({"job": bytes(32)})
    with pytest.raises(Invalid, match=r"signing\.address"):
        signing.parse_address("0x" + "00" * 19)


def test_hex_and_bytes_hash_alike():
    a = GOOD | {"job": bytes(range(32))}
    assert WORK.hash(a) == WORK.hash(a | {"job": "0x" + bytes(range(32)).hex()})


def test_unsupported_types_fail_at_definition():
    for kind in ("uint8", "bool", "int256", "bytes31", "uint256[]"):
        with pytest.raises(KeyError, match=kind.rstrip("[]")):
            signing.Struct("S", (("a", kind),))


def test_new_keys_differ_and_are_usable():
    made = {signing.new_private_key() for _ in range(8)}
    assert len(made) == 8
    assert len({signing.address_of(key) for key in made}) == 8


def test_digest_and_sign_and_recover_stay_within_their_budget():
    domain = signing.Domain("AITBC", "1", 31337)
    digest = signing.digest(domain, WORK, GOOD)
    signature = signing.sign(KEY, digest)

    def fastest(function) -> float:
        return min(timeit.repeat(function, number=50, repeat=20)) / 50 * 1e6

    assert fastest(lambda: signing.sign(KEY, signing.digest(domain, WORK, GOOD))) < BUDGET_US
    assert fastest(lambda: signing.recover(digest, signature)) < BUDGET_US
