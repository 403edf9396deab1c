"""Encoding of calls, logs and errors, held against web3's own codec."""

from random import Random

import eth_abi
import pytest
from web3 import Web3

from aitbc.chain import abi
from aitbc.chain.abi import interface, plain, revert_reason

ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
ID = "0x" + "ab" * 32


@pytest.fixture(scope="module")
def reference():
    return Web3().eth.contract(abi=interface("Settlement").entries)


@pytest.mark.parametrize(
    ("function", "ours", "theirs"),
    [
        ("withdraw", [ID, ADDRESS, "1000", "0x1234"], [ID, ADDRESS, 1000, "0x1234"]),
        ("claim", [ID, "1", ADDRESS, "2", [ID, ID]], [ID, 1, ADDRESS, 2, [ID, ID]]),
        (
            "claimMany",
            [ID, [["1", ADDRESS, "2"], ["3", ADDRESS, "4"]], [ID], [True, False]],
            [ID, [(1, ADDRESS, 2), (3, ADDRESS, 4)], [ID], [True, False]],
        ),
        ("pause", [], []),
    ],
)
def test_calls_equal_those_of_web3(reference, function, ours, theirs):
    assert interface("Settlement").call_data(function, ours) == reference.encode_abi(function, args=theirs)


def test_values_survive_the_way_to_json_and_back():
    assert plain("uint256", 2**256 - 1) == str(2**256 - 1)
    assert plain("bytes32[]", [b"\1" * 32]) == ["0x" + "01" * 32]
    assert plain("address", ADDRESS.lower()) == ADDRESS
    assert plain("bool", True) is True


def test_a_wrong_number_or_kind_of_arguments_is_refused():
    with pytest.raises(ValueError, match="zip"):
        interface("Settlement").call_data("anchor", [ID])
    with pytest.raises(ValueError, match="invalid literal"):
        interface("Settlement").call_data("anchor", [ID, ID, "many", ID])
    with pytest.raises(KeyError):
        interface("Settlement").call_data("mint", [])


def test_an_unknown_event_is_none_and_a_known_one_is_decoded():
    assert interface("AIT").decode_log([ID], "0x") is None
    assert interface("AIT").decode_log([], "0x") is None
    transfer = next(s for s in interface("AIT").events.values() if s.name == "Transfer")
    topics = ["0x" + transfer.hash.hex(), "0x" + "00" * 32, "0x" + "00" * 12 + ADDRESS[2:].lower()]
    name, args = interface("AIT").decode_log(topics, "0x" + (5).to_bytes(32, "big").hex())
    assert (name, args) == ("Transfer", {"from": "0x" + "00" * 20, "to": ADDRESS, "value": "5"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, ""),
        ("0x", ""),
        ("0x" + "08c379a0" + f"{32:064x}{4:064x}" + b"oops".hex().ljust(64, "0"), "oops"),
        ("0x" + "4e487b71" + f"{17:064x}", "Panic(17)"),
        ("0xdeadbeef", "deadbeef"),
    ],
)
def test_revert_reasons(data, reason):
    assert revert_reason(data) == reason


def test_custom_errors_have_their_names():
    selector = next(s for s, e in interface("Settlement").errors.items() if e.name == "IdUsed")
    assert revert_reason("0x" + selector.hex() + "00" * 32) == "IdUsed"


def test_words_are_decoded_as_eth_abi_does():
    random = Random(7)
    for _ in range(200):
        kinds = [random.choice(list(abi._WORDS)) for _ in range(random.randint(1, 4))]
        raw = b"".join(
            bytes(12) + random.randbytes(20) if kind == "address" else random.randbytes(32) for kind in kinds
        )
        expected = [abi.plain(kind, value) for kind, value in zip(kinds, eth_abi.decode(kinds, raw), strict=True)]
        assert abi._decoded(kinds, raw) == expected


def test_words_that_are_missing_are_refused():
    with pytest.raises(eth_abi.exceptions.InsufficientDataBytes):
        abi._decoded(["uint256", "uint256"], bytes(32))
