"""The system user that runs PostgreSQL when the platform is started by root, which PostgreSQL refuses."""

from __future__ import annotations

import pwd
import shutil
import subprocess
from pathlib import Path

from aitbc.stack.errors import StackError
from aitbc.stack.process import wait_for

NAME = "aitbc-postgres"


def system_user() -> pwd.struct_passwd:
    """The user, created when missing."""
    # Two first starts may meet: useradd then refuses for the lock of the password file, or because
    # the other one has just made the user.
    wait_for(_exists_or_created, seconds=10)
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        raise StackError(f"cannot create the system user {NAME}: {_create()}") from None


def _exists_or_created() -> bool:
    try:
        pwd.getpwnam(NAME)
    except KeyError:
        return not _create()
    return True


def _create() -> str:
    """Create the user; the reason when that failed, else empty."""
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return "there is no useradd on this machine"
    options = ["--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    return subprocess.run(
        [program, *options, NAME], capture_output=True, text=True, check=False
    ).stderr.strip()


def passable(path: Path) -> bool:
    """Whether any user may pass through every folder above `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents if folder.exists())
