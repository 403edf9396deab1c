"""Ids on their way to a contract and back. Addresses: tests/contracts and test_deploy."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from aitbc.chain.addresses import bytes32, user_of


@given(st.uuids())
def test_an_id_survives_the_contract(value):
    assert len(bytes32(value)) == 66
    assert user_of(bytes32(value)) == value


def test_an_address_in_32_bytes_is_no_id():
    assert user_of("0x" + "00" * 12 + "ab" * 20) is None
    assert bytes32(UUID(int=1)) == "0x" + "00" * 15 + "01" + "00" * 16
