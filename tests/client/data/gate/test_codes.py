"""The table of findings: every code that the gate can say stands in it, and docs/findings.md shows all of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.data.dicom.findings import left_out, several
from client.data.dicom.kinds import Kind
from client.data.dicom.problems import REASONS, RETRIED
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


# Codes whose severity depends on how far it goes, as the table says in words.
BOTH = ("dicom-uneven-slices", "label-plane", "label-outside", "image-elsewhere")
# What raises a finding -> where its severity stands: a word, or the place of the argument; none for the table's own.
RAISED: dict[str, str | int | None] = {
    "finding": None, "_finding": None, "Finding": 1, "Note": 1, "Misfit": "error", "warn": "warning",
}  # fmt: skip


def raised(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Code and severity of every finding whose code is written out; an empty severity where the table gives it."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args):
        name, code = ast.unparse(call.func).rpartition(".")[2], call.args[0]
        if name in RAISED and isinstance(code, ast.Constant) and isinstance(code.value, str):
            where = RAISED[name]
            severity = call.args[where] if isinstance(where, int) else ast.Constant(where or "")
            yield code.value, str(severity.value) if isinstance(severity, ast.Constant) else ""


def test_every_code_that_is_raised_is_in_the_table_with_its_severity() -> None:
    modules = (ROOT / "client/data").rglob("*.py")
    found = {pair for path in modules for pair in raised(ast.parse(path.read_text(encoding="utf-8")))}
    assert len({code for code, _ in found}) > 70
    assert {code for code, _ in found} <= set(CODES)
    assert [(c, s) for c, s in sorted(found) if s and c not in BOTH and s != CODES[c].severity] == []


def test_dicom_says_what_the_table_says() -> None:
    assert {kind.value for kind in Kind} - {"slices", "picture"} <= set(CODES)
    assert {f"dicom-{reason}" for reason in REASONS if reason not in RETRIED} <= set(CODES)
    one = several("c", Path("/scans/1"), ["a", "b"], "number")
    assert (one.severity, one.remedy) == ("warning", CODES["dicom-split-by-number"].remedy)
    assert left_out(Kind.MOSAIC, "c", Path("/scans/1"), 2).severity == CODES["dicom-mosaic"].severity


def test_what_dicom_imports_imports_nothing_of_the_gates_checks() -> None:
    for name in ("code", "codes_dicom"):
        tree = ast.parse((ROOT / f"client/data/gate/{name}.py").read_text(encoding="utf-8"))
        own = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        assert {module for module in own if module.startswith("client.")} <= {
            "client.data.dicom.problems", "client.data.gate.code"
        }  # fmt: skip


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
