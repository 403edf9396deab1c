import dataclasses
import uuid

import pytest
import rfc8785
from eth_account import Account
from eth_account.messages import encode_typed_data

from aitbc.chain.signing import address_of, digest, keccak, new_private_key, recover, sign
from aitbc.core.errors import Invalid
from apps.gpu import statements

JOB = "01890a5d-ac96-774b-bcce-b302099a8057"
MINER = "01890a5d-ac96-774b-bcce-b302099a8058"


@pytest.fixture
def statement():
    return statements.WorkStatement(
        job=JOB,
        kind="onnx.infer",
        client="0x" + "11" * 32,
        miner=MINER,
        attempt=2,
        lease="0x" + statements.lease_hash("token").hex(),
        input_commitment="0x" + "22" * 32,
        output_commitment="0x" + "33" * 32,
        unit_price=10**15,
        max_units=60_000,
    )


def test_a_uuid_stands_right_aligned_in_32_bytes():
    assert statements.uuid32(JOB) == bytes(16) + uuid.UUID(JOB).bytes
    assert int.from_bytes(statements.uuid32(JOB), "big") == uuid.UUID(JOB).int


def test_a_commitment_is_salted_twice_hashed_canonical_json():
    value = {"b": 1.0, "a": [True, None, "ü"]}

    made = statements.commitment(salt=b"s" * 32, value=value)

    assert made == keccak(b"s" * 32 + keccak('{"a":[true,null,"ü"],"b":1}'.encode()))
    assert made != statements.commitment(salt=b"t" * 32, value=value)
    assert made == statements.commitment(salt=b"s" * 32, value=dict(reversed(value.items())))


@pytest.mark.parametrize("value", [10**17, 2**53, -(2**53), [2**53 + 2]])
def test_a_large_number_that_is_a_double_is_the_same_as_whole_and_as_floating_point(value):
    as_float = [float(value[0])] if isinstance(value, list) else float(value)

    assert statements.canonical(value) == statements.canonical(as_float)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1, -(2**60), 10**400, "\ud800"])
def test_a_value_without_canonical_json_is_refused(value):
    with pytest.raises(Invalid) as caught:
        statements.commitment(salt=bytes(32), value=value)

    assert caught.value.code == "statement.not_canonical"


def test_an_artifact_is_committed_by_its_hash_and_not_by_its_text():
    sha256 = "ab" * 32

    made = statements.artifact_commitment(salt=b"s" * 32, sha256=sha256)

    assert made == keccak(b"s" * 32 + keccak(bytes.fromhex(sha256)))
    assert made != statements.commitment(salt=b"s" * 32, value=sha256)


@pytest.mark.parametrize("text", ["ab" * 31, "zz" * 32, ""])
def test_a_hash_of_another_length_is_refused(text):
    with pytest.raises(Invalid) as caught:
        statements.hex32(text)

    assert caught.value.code == "statement.hash"


def test_the_work_statement_is_plain_eip712_as_other_wallets_read_it(statement):
    key = new_private_key()
    ours = sign(key, digest(statements.domain(31337), statements.WORK_STATEMENT, statement.values()))
    theirs = encode_typed_data(
        {"name": "AITBC", "version": "1", "chainId": 31337},
        {"WorkStatement": [{"name": n, "type": t} for n, t in statements.WORK_STATEMENT.fields]},
        {
            **statement.values(),
            **{
                f: bytes.fromhex(getattr(statement, f)[2:])
                for f in ("client", "lease", "input_commitment", "output_commitment")
            },
        },
    )

    assert Account.recover_message(theirs, signature=ours) == address_of(key)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(statements.WorkStatement)])
def test_every_field_changes_the_hash(statement, field):
    other = {"job": MINER, "miner": JOB, "attempt": 3, "unit_price": 1, "max_units": 1, "kind": "x", "unit": "y"}.get(
        field, "0x" + "99" * 32
    )

    assert dataclasses.replace(statement, **{field: other}).hash() != statement.hash()


def test_a_statement_survives_json_unchanged(statement):
    again = statements.WorkStatement.from_json(statement.as_json())

    assert again == statement
    assert again.as_json()["unit_price"] == "1000000000000000"
    assert rfc8785.dumps(again.as_json())


@pytest.mark.parametrize(
    "change",
    [
        {"unit_price": 10**15},
        {"unit_price": "0010"},
        {"max_units": "-1"},
        {"max_units": "6e4"},
        {"job": "no"},
        {"job": JOB.upper()},
        {"client": "0x" + "AB" * 32},
        {"client": "11" * 32},
        {"attempt": "2"},
        {"attempt": True},
        {"kind": ""},
        {"extra": 1},
    ],
)
def test_a_malformed_statement_is_refused(statement, change):
    with pytest.raises(Invalid) as caught:
        statements.WorkStatement.from_json(statement.as_json() | change)

    assert caught.value.code == "statement.malformed"


def test_the_head_of_a_heartbeat_chain_depends_on_every_beat_before_it():
    def head(utilization):
        previous = statements.GENESIS
        for sequence in (1, 2):
            values = statements.heartbeat_values(
                miner=MINER,
                sequence=sequence,
                previous=previous,
                running=[],
                telemetry=[{"device_id": JOB, "utilization": utilization if sequence == 1 else 5.0}],
            )
            previous = statements.HEARTBEAT.hash(values)
        return previous

    assert head(1.0) == head(1.0)
    assert head(1.0) != head(2.0)


def test_a_registration_binds_prefix_nonce_and_address():
    key = new_private_key()
    values = {"prefix": "abc", "nonce": "n1", "address": address_of(key)}
    proof = sign(key, digest(statements.domain(1), statements.MINER_REGISTRATION, values))

    def signer(**change):
        return recover(digest(statements.domain(1), statements.MINER_REGISTRATION, values | change), proof)

    assert signer() == address_of(key)
    assert signer(prefix="abd") != address_of(key)
    assert signer(nonce="n2") != address_of(key)
