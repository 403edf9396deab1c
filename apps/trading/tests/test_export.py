"""The exported journal is accepted by Beancount, which also finds a unit that is missing."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from apps.trading.services import ledger
from apps.trading.tests.books import account, balance, opened, post, transfer, void

SHARDS = 2 * 16  # of the platform's fees, seeded for AIT and for CREDIT
BEAN_CHECK = Path(sys.executable).with_name("bean-check")


@pytest.fixture
def journal(committed_db, tmp_path) -> Path:
    """Books with transfers, holds, and amounts down to the smallest unit."""
    alice, bob = account(10**18 + 7), account(3)
    first, second = opened(alice, 5), opened(alice, 10**17)
    ledger.apply_all([transfer(alice, bob, 10), post(first, bob, 3), void(second)])
    assert balance(bob) == (16, 0)
    path = tmp_path / "ledger.beancount"
    call_command("export_ledger", output=path)
    return path


def check(path: Path) -> tuple[int, str]:
    done = subprocess.run([BEAN_CHECK, path], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_beancount_accepts_the_books(journal):
    assert check(journal) == (0, "")
    text = journal.read_text()
    assert text.count(" open ") == text.count(" balance ") == 3 + SHARDS
    assert text.count(' * "') == 4
    assert "  0.000000000000000003 AIT\n" in text
    assert " balance Assets:External:" in text


@pytest.mark.parametrize(
    ("directive", "old", "new", "complaint"),
    [
        ("balance Liabilities", "-0.000000000000000016 ", "-0.000000000000000017 ", "Balance failed"),
        ("  Liabilities", "  -0.000000000000000010 ", "  -0.000000000000000011 ", "does not balance"),
    ],
    ids=["a cached balance", "a leg"],
)
def test_beancount_finds_one_unit_too_many(journal, directive, old, new, complaint):
    lines = journal.read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines) if directive in line and old in line]
    lines[number] = lines[number].replace(old, new)
    journal.write_text("\n".join(lines) + "\n")
    code, said = check(journal)
    assert code == 1
    assert complaint in said


def test_on_standard_output_without_a_file(committed_db, capfd):
    account(5)
    call_command("export_ledger")
    out = capfd.readouterr().out
    assert out.startswith('option "title" "AITBC ledger"\n')
    assert out.count(" balance ") == 2 + SHARDS


def test_a_file_that_exists_is_not_written_over(journal):
    before = journal.read_text()
    with pytest.raises(CommandError, match="File exists"):
        call_command("export_ledger", output=journal)
    assert journal.read_text() == before
