"""`docs/migration.md` tells the truth: each new path exists with its method, or its absence is explained."""

import re
from pathlib import Path

import pytest
from django.test import Client

TABLE = Path(__file__).resolve().parents[2] / "docs" / "migration.md"
ROW = re.compile(
    r"^\| `(?P<old>[A-Z]+ [^`]+)`[^|]*"
    r"\| (?:`(?P<method>[A-Z]+) (?P<path>[^`]+)`|\*(?P<absent>none|later)\*) \| (?P<note>.*) \|$"
)
ROWS = [found for line in TABLE.read_text().splitlines() if (found := ROW.match(line))]
HEALTH = {("GET", "/health/live"), ("GET", "/health/ready")}


def plain(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.fixture(scope="module")
def served(django_db_setup, django_db_blocker) -> set[tuple[str, str]]:
    with django_db_blocker.unblock():
        documents = [Client().get(url).json() for url in ("/v1/openapi.json", "/api/schema/?format=json")]
    found = {
        (method.upper(), plain(path).rstrip("/") or "/")
        for document in documents
        for path, operations in document["paths"].items()
        for method in operations
    }
    return found | HEALTH


def test_every_line_of_the_tables_is_understood():
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    assert len(lines) == len(ROWS) > 100


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["old"])
def test_every_new_path_is_served_or_its_absence_explained(row, served):
    if row["absent"]:
        assert row["note"]
    else:
        assert (row["method"], plain(row["path"])) in served
