"""What findings may show outside: closed words, numbers above a minimum, made-up names; a fuzz test looks for more."""

import ast
import json
import random
import string
from pathlib import Path

import pytest

from client.data.dicom.kinds import Kind
from client.data.dicom.problems import REASONS, RETRIED
from client.data.export.case import REFUSALS
from client.data.gate.codes import CODES
from client.data.gate.share import MINIMUM, OTHER, made_up_name, shared
from client.data.volume import Finding

CLIENT = Path(__file__).parents[4] / "client"
# What makes findings: a class or function whose first argument is a code.
MAKERS = {"Finding", "finding", "Note", "Misfit", "warn"}


def many(code: str, number: int, severity: str = "warning") -> list[Finding]:
    return [Finding(code, severity, f"DOE_{k}", f"/scans/DOE_{k}: bad", "mend") for k in range(number)]


def test_counts_below_the_minimum_and_their_names_are_withheld(tmp_path: Path) -> None:
    findings = [
        *many("spacing", MINIMUM - 1),
        *many("label-empty", MINIMUM),
        Finding("few-cases", "warning", "", "3", "x"),
    ]
    told = shared(tmp_path, findings, 200)
    assert told["found"] == 200
    by_code = {f["code"]: f for f in told["findings"]}
    assert (by_code["spacing"]["count"], by_code["spacing"]["cases"]) == (None, [])
    assert by_code["label-empty"]["count"] == MINIMUM
    assert len(set(by_code["label-empty"]["cases"])) == MINIMUM
    assert (by_code["few-cases"]["count"], by_code["few-cases"]["cases"]) == (None, [])
    assert shared(tmp_path, [], MINIMUM - 1)["found"] is None
    assert shared(tmp_path, many("spacing", 3), 3, minimum=3)["findings"][0]["count"] == 3


def test_several_findings_of_one_case_count_once(tmp_path: Path) -> None:
    told = shared(tmp_path, many("spacing", MINIMUM - 1) * 5, 50)
    assert told["findings"][0]["count"] is None


def test_names_hold_within_a_site_and_differ_between_codes_and_sites(tmp_path: Path) -> None:
    findings = many("spacing", 10) + many("label-empty", 10)
    first, again = shared(tmp_path / "a", findings, 10), shared(tmp_path / "a", findings, 10)
    other = shared(tmp_path / "b", findings, 10)
    assert first == again
    names = [set(f["cases"]) for told in (first, other) for f in told["findings"]]
    assert len(set.union(*names)) == sum(map(len, names)) == 40
    assert made_up_name(tmp_path / "a", "spacing", "DOE_3") in first["findings"][1]["cases"]
    assert (tmp_path / "a" / "trainer" / "pseudonyms.key").stat().st_mode & 0o777 == 0o600


def test_every_code_of_the_gate_the_readers_and_the_layouts_is_known() -> None:
    used = set()
    for path in (CLIENT / "data").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = ast.unparse(node.func).rpartition(".")[2]
                first = node.args[0]
                if name in MAKERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    used.add(first.value)
    assert len(used) > 40
    assert {code for code in used if code != "error"} - CODES.keys() == set()
    assert {kind.value for kind in Kind if kind.value.startswith("dicom-")} <= CODES.keys()
    assert {f"dicom-{reason}" for reason in REASONS if reason not in RETRIED} <= CODES.keys()
    assert not {f"export-{reason}" for reason in REFUSALS} & CODES.keys(), "an export is the site's own affair"


@pytest.mark.parametrize("seed", range(20))
def test_fuzz_nothing_but_closed_words_numbers_and_hex_gets_out(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)

    def anything() -> str:
        letters = string.printable + "ÆØÅé中"
        return "CANARY" + "".join(dice.choices(letters, k=dice.randrange(30)))

    findings = [
        Finding(
            dice.choice([*sorted(CODES), anything()]), dice.choice(["error", "warning", "info", anything()]),
            dice.choice(["", anything(), f"CANARY{k % 37}"]), anything(), anything(),
        )
        for k in range(dice.randrange(400))
    ]  # fmt: skip
    told = shared(tmp_path / "home", findings, dice.randrange(1000))
    text = json.dumps(told)
    assert "CANARY" not in text
    assert set(told) == {"format", "version", "minimum", "found", "findings"}
    for entry in told["findings"]:
        assert set(entry) == {"code", "severity", "count", "cases"}
        assert entry["code"] in {*CODES, OTHER}
        assert entry["severity"] in ("error", "warning", "info")
        assert entry["count"] is None or entry["count"] >= MINIMUM
        assert len(entry["cases"]) == (entry["count"] or 0)
        assert all(len(name) == 12 and int(name, 16) >= 0 for name in entry["cases"])
