"""The miner's two credentials: its API key, and the signing key that its work and heartbeats carry."""

import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aitbc.chain.signing import Domain, Struct, address_of, digest, new_private_key, sign
from aitbc.core.files import write_private

_API_KEY: Final = re.compile(r"ait_([0-9A-Za-z]+)_[0-9A-Za-z_-]+\Z")


@dataclass(frozen=True)
class Identity:
    """A signing key and its checksummed address."""

    address: str
    _key: bytes = field(repr=False)

    def sign(self, domain: Domain, struct: Struct, values: Mapping[str, Any]) -> str:
        return sign(self._key, digest(domain, struct, values))


def load_identity(path: Path) -> Identity:
    """The signing key in `path`, made there (mode 0600) the first time.

    PermissionError if others may read it, ValueError if it is not a key: never a new one in its place,
    since the platform knows the miner's work by the old one.
    """
    if not path.exists():
        with suppress(FileExistsError):  # another miner with this state was first: its key counts
            write_private(path, new_private_key().hex().encode())
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(f"{path} can be read by others; chmod 600 it")
    text = path.read_text().strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{path} does not hold a signing key of 32 bytes in hex")
    key = bytes.fromhex(text)
    return Identity(address_of(key), key)


def read_api_key(path: Path) -> tuple[str, str]:
    """(API key, its public prefix) from a file; ValueError without repeating what it holds."""
    text = path.read_text().strip()
    match = _API_KEY.match(text)
    if match is None:
        raise ValueError(f"{path} does not hold an API key (ait_<prefix>_<secret>)")
    return text, match[1]
