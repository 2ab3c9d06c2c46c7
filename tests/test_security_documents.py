"""What the documents on security and failures claim is tested: every row names a test, and every such test exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["docs/security.md", "docs/failures.md", "docs/threat-model.md"]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def functions_of(path: Path) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)}


def rows(text: str) -> list[str]:
    """Rows of tables, without their heads."""
    lines = text.splitlines()
    rules = {i for i, line in enumerate(lines) if re.fullmatch(r"\|(-+\|)+", line)}
    return [line for i, line in enumerate(lines) if line.startswith("|") and not {i, i + 1} & rules]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    named = set(NAMED.findall((ROOT / document).read_text(encoding="utf-8")))
    assert len(named) > 20
    missing = [f"{p}::{n}" for p, n in sorted(named) if n not in functions_of(ROOT / "tests" / p)]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_names_a_test(document: str) -> None:
    found = rows((ROOT / document).read_text(encoding="utf-8"))
    assert len(found) >= 20
    assert [row for row in found if not NAMED.search(row)] == []


def test_all_twenty_failures_are_there() -> None:
    text = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
    assert [int(row.split("|")[1]) for row in rows(text)] == list(range(1, 21))
