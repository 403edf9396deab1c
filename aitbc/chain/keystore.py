"""One encrypted key file per role (keystore version 3), each for one purpose only.

Files lie in KEYS_DIR as `<role>.json` beside `password`; all are 0600 and refused otherwise. The
password is 32 random bytes, so the key derivation needs no cost of its own and start-up stays fast.
The approver's key lies apart, in `approver/`: a person opens it with a passphrase that is stored nowhere,
so that no process, the chain worker least of all, approves by itself (protocols 8).
"""

import json
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import coincurve
from django.conf import settings

from aitbc.chain import signing
from aitbc.core.errors import Conflict, Invalid, Unavailable
from aitbc.core.files import write_private

ROLES: Final = ("receipt", "operator", "approver", "guardian", "owner", "deployer")
APPROVER: Final = "approver"
_SCRYPT_N: Final = 2**10
PERSONAL_SCRYPT_N: Final = 2**17  # for a passphrase that a person remembers (OWASP)


class Signer:
    """A role's key in memory. Neither repr nor pickling shows it."""

    def __init__(self, role: str, private_key: bytes) -> None:
        self._key = coincurve.PrivateKey(private_key)
        self.role = role
        self.address = signing.address_of(private_key)
        self.key_id = f"{role}-{self.address[2:10].lower()}"

    def sign(self, digest: bytes) -> str:
        """`0x` + 65 bytes over a 32 byte digest."""
        return signing.sign(self._key, digest)

    def sign_transaction(self, fields: dict[str, Any]) -> tuple[bytes, str]:
        """(bytes to broadcast, transaction hash) of an EIP-1559 transaction."""
        from eth_account import Account  # a quarter of a second that only the chain worker has to spend

        signed = Account.sign_transaction(fields, self._key.secret)
        return bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex()

    def __repr__(self) -> str:
        return f"<Signer {self.key_id}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key does not leave its process")


def _read_private(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise Unavailable("keystore.missing", f"there is no {path.name} in the key folder") from None
    if stat.S_IMODE(mode) & 0o077:
        raise Unavailable("keystore.permissions", f"{path.name} is open to others than its owner")
    return path.read_text()


def _password(*, create: bool, name: str = "password") -> str:
    path = Path(settings.KEYS_DIR) / name
    if create and not path.exists():
        with suppress(FileExistsError):  # another process made it first: its password counts
            write_private(path, secrets.token_urlsafe(32).encode())
    return _read_private(path).strip()


def _path(role: str) -> Path:
    if role not in ROLES:
        raise ValueError(f"{role} is not a role")
    return Path(settings.KEYS_DIR) / (role if role == APPROVER else "") / f"{role}.json"


def address(role: str) -> str:
    """The role's address, as its key file says in clear: no password needed. Unavailable "keystore.missing"
    or "keystore.malformed"."""
    try:
        found = json.loads(_read_private(_path(role)))["address"]
        return signing.checksum_address(signing.parse_address("0x" + found))
    except (ValueError, KeyError, TypeError, Invalid) as error:
        raise Unavailable("keystore.malformed", f"the key file of {role} names no address") from error


def store(role: str, private_key: bytes, *, passphrase: str | None = None, cost: int = _SCRYPT_N) -> Signer:
    """Write a role's key file; Conflict "keystore.exists" rather than replace one. The approver's, and no
    other, takes a passphrase of its own."""
    if (role == APPROVER) != bool(passphrase):
        raise ValueError("the approver's key alone has a passphrase, and always has one")
    from eth_keyfile import create_keyfile_json  # slow to import, and needed once in a key's life

    password = passphrase or _password(create=True)
    document = create_keyfile_json(private_key, password, kdf="scrypt", iterations=cost)
    try:
        write_private(_path(role), json.dumps(document).encode())
    except FileExistsError:
        raise Conflict("keystore.exists", f"the role {role} has a key already") from None
    return Signer(role, private_key)


def load(role: str, *, passphrase: str | None = None) -> Signer:
    """The role's signer; Unavailable "keystore.missing", ".permissions" or ".password". Only who knows its
    passphrase loads the approver's."""
    from eth_keyfile import decode_keyfile_json  # slow to import, and needed once in a process's life

    document = json.loads(_read_private(_path(role)))
    try:
        password = (passphrase or "") if role == APPROVER else _password(create=False)
        return Signer(role, decode_keyfile_json(document, password))
    except ValueError as error:
        raise Unavailable("keystore.password", f"the password does not open the key of {role}") from error


def load_or_create(role: str) -> Signer:
    """For development set-up: two processes that race end with the same key. There alone the approver's
    passphrase is made by the machine, and left beside the key."""
    passphrase = _password(create=True, name=f"{APPROVER}/passphrase") if role == APPROVER else None
    if not _path(role).exists():
        with suppress(Conflict):  # the other process won; load its key
            return store(role, signing.new_private_key(), passphrase=passphrase)
    return load(role, passphrase=passphrase)
