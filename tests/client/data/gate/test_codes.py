"""The table of findings: every code that the gate can say stands in it, and docs/findings.md shows all of them."""

import ast
from pathlib import Path

import pytest

from client.data.gate.codes import CODES, finding, page, table

ROOT = Path(__file__).parents[4]


def said(tree: ast.Module) -> set[str]:
    """First arguments of the calls of `finding` that are written out."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "finding"]
    return {c.args[0].value for c in calls if c.args and isinstance(c.args[0], ast.Constant)}


def test_every_code_of_the_gate_is_in_the_table() -> None:
    modules = (ROOT / "client/data/gate").glob("*.py")
    codes = set().union(*(said(ast.parse(path.read_text(encoding="utf-8"))) for path in modules))
    assert len(codes) > 25
    assert codes <= set(CODES)


def test_a_finding_has_the_tables_severity_and_remedy() -> None:
    one = finding("label-grid", "c1", "mask.nii.gz: shape (1, 2, 3)")
    assert (one.severity, one.remedy) == ("error", CODES["label-grid"].remedy)
    assert finding("label-grid", "c1", "x", "Do this.").remedy == "Do this."
    with pytest.raises(KeyError):
        finding("label-grids", "c1", "x")


def test_the_table_is_complete_and_readable() -> None:
    lines = table().splitlines()
    assert len(lines) == len(CODES) + 2
    assert all(line.count("|") == 5 for line in lines)
    for code, entry in CODES.items():
        assert entry.severity in ("error", "warning", "info"), code
        assert entry.remedy.endswith("."), code
        assert entry.what[0].islower() or entry.what.split()[0].isupper(), code


def test_severities_stand_from_bad_to_good() -> None:
    order = [line.split("|")[2].strip() for line in table().splitlines()[2:]]
    assert order == sorted(order, key=["error", "warning", "info"].index)


def test_the_published_list_is_the_codes() -> None:
    assert (ROOT / "docs/findings.md").read_text(encoding="utf-8") == page()
