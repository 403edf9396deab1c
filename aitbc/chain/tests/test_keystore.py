"""Key files: private, encrypted, never shown."""

import pickle
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from aitbc.chain import keystore, signing
from aitbc.core.errors import Conflict, Unavailable

KEY = b"\x07" * 32


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.KEYS_DIR = tmp_path / "keys"
    return settings.KEYS_DIR


def test_a_stored_key_is_loaded_again(folder):
    made = keystore.store("receipt", KEY)
    loaded = keystore.load("receipt")

    assert loaded.address == made.address == signing.address_of(KEY)
    assert loaded.key_id == f"receipt-{loaded.address[2:10].lower()}"
    digest = signing.keccak(b"x")
    assert signing.recover(digest, loaded.sign(digest)) == loaded.address


def test_files_are_private_and_hold_no_plain_key(folder):
    keystore.store("operator", KEY)
    assert sorted(path.name for path in folder.iterdir()) == ["operator.json", "password"]
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert KEY.hex() not in path.read_text()


@pytest.mark.parametrize("name", ["receipt.json", "password"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_open_to_others_is_refused(folder, name, mode):
    keystore.store("receipt", KEY)
    (folder / name).chmod(mode)
    with pytest.raises(Unavailable, match=r"keystore\.permissions") as caught:
        keystore.load("receipt")
    assert name in caught.value.message


def test_another_password_opens_nothing(folder):
    keystore.store("receipt", KEY)
    (folder / "password").write_text("wrong")
    with pytest.raises(Unavailable, match=r"keystore\.password"):
        keystore.load("receipt")


def test_a_missing_role_and_an_unknown_one_are_told_apart():
    with pytest.raises(Unavailable, match=r"keystore\.missing"):
        keystore.load("guardian")
    with pytest.raises(ValueError, match="not a role"):
        keystore.load("../receipt")


def test_a_key_is_never_replaced():
    keystore.store("owner", KEY)
    with pytest.raises(Conflict, match=r"keystore\.exists"):
        keystore.store("owner", b"\x08" * 32)
    assert keystore.load("owner").address == signing.address_of(KEY)


def test_racing_creators_end_with_one_key():
    with ThreadPoolExecutor(8) as pool:
        signers = list(pool.map(lambda _: keystore.load_or_create("deployer"), range(8)))
    assert len({signer.address for signer in signers}) == 1


def test_a_signer_shows_and_gives_away_nothing():
    signer = keystore.store("receipt", KEY)
    assert repr(signer) == f"<Signer {signer.key_id}>"
    assert KEY.hex() not in repr(vars(signer))
    with pytest.raises(TypeError, match="does not leave"):
        pickle.dumps(signer)


def test_only_the_approvers_key_has_a_passphrase_of_its_own():
    with pytest.raises(ValueError, match="alone has a passphrase"):
        keystore.store("operator", KEY, passphrase="mine")
    with pytest.raises(ValueError, match="always has one"):
        keystore.store("approver", KEY)
    made = keystore.load_or_create("approver")
    assert keystore.load_or_create("approver").address == made.address
