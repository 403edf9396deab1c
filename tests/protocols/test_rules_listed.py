"""Every rule of the protocols has its test, or says here which issue brings it."""

import ast
import re
from pathlib import Path

import pytest

RULES = range(1, 36)
ISSUES = {"Money and chain", "GPU and marketplace", "Platform and console"}
HERE = Path(__file__).parent

# Not reached yet: rule -> the issue that brings it.
COMING = {
    31: "GPU and marketplace"  # privacy tiers and encrypted inputs
}
# Reached in part, with a test of that part: rule -> (what is missing, the issue that brings it).
PARTLY = {
    7: ("a setting that has jobs priced in CREDIT", "Money and chain"),
    8: ("key ids can be rotated, bridge validators", "Money and chain"),
    9: ("a one-time code; two persons and a delay for changing parameters and roles", "Money and chain"),
    18: ("consent at submission: it is given at the dispute", "GPU and marketplace"),
    34: ("login throttles in PostgreSQL", "Platform and console"),
}


def files() -> dict[int, Path]:
    found = {int(re.fullmatch(r"test_rule_(\d\d)\.py", path.name)[1]): path for path in HERE.glob("test_rule_*.py")}
    assert set(found) <= set(RULES)
    return found


def test_every_rule_has_its_file_or_its_issue():
    have = set(files())

    assert have | set(COMING) == set(RULES)
    assert have & set(COMING) == set()
    assert set(PARTLY) <= have
    assert {*COMING.values(), *(issue for _, issue in PARTLY.values())} <= ISSUES


@pytest.mark.parametrize(
    ("rule", "path"), [pytest.param(rule, path, id=f"{rule:02}") for rule, path in sorted(files().items())]
)
def test_a_rules_file_names_it_and_tests_something(rule, path):
    tree = ast.parse(path.read_text())
    tests = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]

    assert (ast.get_docstring(tree) or "").startswith(f"Rule {rule}")
    assert tests
    for test in tests:
        assert any(isinstance(node, ast.Assert | ast.With) or _asserts(node) for node in ast.walk(test)), test.name


def _asserts(node: ast.AST) -> bool:
    """A call of a helper that asserts, by its name."""
    return isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")).startswith(
        ("refused", "assert_", "check_", "raises")
    )
