"""A chain database file of a test's own, in the place where a command in another process finds it."""

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from django.core.management import call_command

from aitbc.chain.models import Block, Log, SignedTransaction
from aitbc.core.sqlcipher import driver

ROOT = Path(__file__).resolve().parents[3]


def _hex(number: int, size: int) -> str:
    return sha256(b"planted %d" % number).hexdigest()[: 2 * size]


ADDRESSES = ["0x" + _hex(n, 20) for n in range(5)]
HASHES = ["0x" + _hex(n, 32) for n in range(10, 15)]
SIGNED = [bytes.fromhex(_hex(n, 32)) * 4 for n in range(20, 25)]
WORDS = [_hex(n, 16) for n in range(30, 35)]
PLANTED = [*ADDRESSES, *HASHES, *SIGNED, *WORDS]


@dataclass
class ChainFile:
    var: Path

    @property
    def path(self) -> Path:
        return self.var / "chain" / "ait-devnet" / "chain.db"

    @property
    def key(self) -> Path:
        return self.var / "secrets" / "db_encryption.key"

    def migrate(self) -> None:
        call_command("migrate", database="chain", verbosity=0)

    def plant(self) -> None:
        """Twenty things that must not be seen, through the models that the chain worker uses."""
        for number in range(5):
            block = Block.objects.create(number=number, hash=HASHES[number], parent=HASHES[0], timestamp=1)
            Log.objects.create(
                block=block, tx_hash=HASHES[number], ordinal=0, log_index=0, address=ADDRESSES[number],
                topics=[WORDS[number]], data=WORDS[number],
            )  # fmt: skip
            SignedTransaction.objects.create(
                sender=ADDRESSES[number], nonce=number, raw=SIGNED[number], tx_hash=HASHES[number],
                gas=1, max_fee=1, epoch=1,
            )  # fmt: skip

    def seen(self, *, but: tuple[Path, ...] = ()) -> set[str]:
        """The files under `var` in which `grep` would find something planted, as text or as bytes."""
        wanted = [form for planted in PLANTED for form in _forms(planted)]
        files = [path for path in self.var.rglob("*") if path.is_file() and path not in but]
        return {path.name for path in files if any(form in path.read_bytes().lower() for form in wanted)}

    def files(self) -> set[str]:
        return {path.name for path in self.path.parent.iterdir()}

    def rows(self, key: Path | None) -> int:
        with closing(driver.connect(str(self.path), key)) as connection:
            return int(connection.execute("SELECT count(*) FROM chain_log").fetchone()[0])

    def environment(self, **more: str) -> dict[str, str]:
        given = {"AITBC_VAR": str(self.var), "DB_ENCRYPTION_KEY_PATH": str(self.key), **more}
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return kept | {"DJANGO_SETTINGS_MODULE": "aitbc.settings.local"} | given

    def manage(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return run("manage.py", *arguments, env=self.environment(**environment))


def run(*arguments: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def _forms(planted: str | bytes) -> list[bytes]:
    if isinstance(planted, bytes):
        return [planted[:24].lower(), planted.hex().encode()]
    bare = planted.removeprefix("0x")
    return [bare.encode(), bytes.fromhex(bare).lower()]
