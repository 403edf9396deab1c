import stat

import pytest

from aitbc.chain.signing import address_of, digest, recover
from apps.gpu import statements
from apps.gpu.agent.identity import load_identity, read_api_key

VALUES = {"prefix": "abc", "nonce": "n", "address": "0x" + "11" * 20}


def test_the_first_start_makes_a_key_that_only_its_owner_reads(tmp_path):
    path = tmp_path / "state" / "signing.key"

    identity = load_identity(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert identity.address == address_of(bytes.fromhex(path.read_text()))
    assert path.read_text() not in repr(identity)


def test_later_starts_sign_with_the_same_key(tmp_path):
    first, again = load_identity(tmp_path / "k"), load_identity(tmp_path / "k")

    signature = again.sign(statements.domain(1), statements.MINER_REGISTRATION, VALUES)

    signed = digest(statements.domain(1), statements.MINER_REGISTRATION, VALUES)
    assert recover(signed, signature) == first.address


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    load_identity(tmp_path / "k")
    (tmp_path / "k").chmod(mode)

    with pytest.raises(PermissionError, match="can be read by others"):
        load_identity(tmp_path / "k")


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "ab" * 33])
def test_a_damaged_key_is_never_replaced(tmp_path, text):
    path = tmp_path / "k"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(ValueError, match="does not hold a signing key"):
        load_identity(path)

    assert path.read_text() == text


def test_an_api_key_has_a_public_prefix(tmp_path):
    (tmp_path / "k").write_text("ait_abc123_s3cret-_x\n")

    assert read_api_key(tmp_path / "k") == ("ait_abc123_s3cret-_x", "abc123")


@pytest.mark.parametrize("text", ["", "s3cr3t", "ait_abc", "Bearer ait_abc_s3cr3t", "ait__s3cr3t"])
def test_what_is_no_api_key_is_refused_without_repeating_it(tmp_path, text):
    (tmp_path / "k").write_text(text)

    with pytest.raises(ValueError, match="does not hold an API key") as caught:
        read_api_key(tmp_path / "k")

    assert text == "" or text not in str(caught.value)
