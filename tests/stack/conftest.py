"""Real servers in folders of their own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aitbc import stack
from aitbc.stack.paths import REPOSITORY, Var, current


@pytest.fixture
def make_var() -> Iterator[Callable[..., Var]]:
    """Makes data folders in short folders of their own (by default any user may pass to them), and
    stops and deletes what was started in them."""
    made: list[Path] = []

    def make(*, mode: int = 0o711) -> Var:
        folder = Path(tempfile.mkdtemp(prefix="aitbc-test-", dir="/tmp"))
        folder.chmod(mode)
        made.append(folder)
        return Var(root=folder / "var")

    yield make
    for folder in made:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AITBC_VAR", str(folder / "var"))
            stack.destroy()
        shutil.rmtree(folder)


@pytest.fixture
def var(make_var: Callable[..., Var], monkeypatch: pytest.MonkeyPatch) -> Var:
    """The present data folder, empty."""
    made = make_var()
    monkeypatch.setenv("AITBC_VAR", str(made.root))
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)  # what is started has its own default
    assert current() == made
    return made


@pytest.fixture
def run_python() -> Callable[..., subprocess.Popen[str]]:
    """Starts `python -c code` from the repository, its output to be read as text."""

    def run(code: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run
