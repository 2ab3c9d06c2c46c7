import time
from pathlib import Path

import pytest

from client.site import SiteConfig
from common.documents import MAX_BYTES, Document
from common.errors import StudyError
from common.study import study_of

GOOD = """\
name: tiny
data:
  labels: [a]
plan:
  patch: [32, 32, 32]
training:
  steps: 10
"""


def said(text: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        study_of(Document(Path("s.yaml"), text))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        # Mistyped keys, at every level.
        ("labels", "lables", ["2: data.labels: this key is required", "3: data.lables: unknown key. Did you mean "
         "'labels'? Known here: channels, labels, codes, dimensions, modality, bad_cases, ignore"]),
        ("name: tiny", "name: tiny\nnet: {name: dynunet, siz: small}", ["2: net.siz: unknown key. Did you mean 'size'? "
         "Known here: size, norm, deep_supervision, strides"]),
        ("patch: [32, 32, 32]", "patch: [32, 32, 32]\n  intensity: {method: zscore, nonzer: true}",
         ["6: plan.intensity.nonzer: unknown key. Did you mean 'nonzero'? Known here: method, nonzero"]),
        # Wrong kinds.
        ("steps: 10", "steps: many", ["7: training.steps: must be a whole number, but is 'many'"]),
        ("steps: 10", "steps: 1.5", ["7: training.steps: must be a whole number, but is 1.5"]),
        ("steps: 10", "steps: true", ["7: training.steps: must be a whole number, but is 'true'"]),
        ("name: tiny", "name: 5", ["1: name: must be text, but is 5; put it in quotes"]),
        ("[a]", "a", ["3: data.labels: must be a list, but is 'a'"]),
        ("[32, 32, 32]", "32", ["5: plan.patch: must be a list, but is 32"]),
        ("steps: 10", "steps: 10\nrounds:", ["8: rounds: must be keys with values, but is empty"]),
        ("patch: [32, 32, 32]", "patch: [32, 32, 32]\n  intensity: zscore",
         ["6: plan.intensity: must be keys with values or a list, but is 'zscore'"]),
        # Out of range: the value, and what is allowed.
        ("steps: 10", "steps: 0", ["7: training.steps: 0 is outside the allowed range: at least 1, at most 1000000"]),
        ("steps: 10", "steps: 10\n  rate: 20",
         ["8: training.rate: 20 is outside the allowed range: above 0, at most"]),
        ("32, 32, 32", "32, 4, 32", ["5: plan.patch.1: 4 is outside the allowed range: at least 8, at most 1024"]),
        ("patch: [32, 32, 32]", "patch: [32, 32, 32]\n  intensity: [{method: percentile, low: -3}]",
         ["6: plan.intensity.0.low: -3 is outside the allowed range: at least 0, below 100"]),
        ("name: tiny", "name: tiny\nstrategy:\n  name: fedprox\n  mu: -1",
         ["4: strategy.mu: -1 is outside the allowed range: at least 0, at most 1000"]),
        ("steps: 10", "steps: 10\n  rate: .nan", ["8: training.rate: must be a finite number, but is nan"]),
        ("name: tiny", "name: tiny\nstrategy: {name: fedprox, mu: .inf}",
         ["2: strategy.mu: must be a finite number, but is inf"]),
        # Names.
        ("name: tiny", "name: tiny\nnet: dynunett",
         ["2: net: unknown net 'dynunett'. Did you mean 'dynunet'? Known: "]),
        ("name: tiny", "name: tiny\nnet:\n  name: dynunett",
         ["3: net.name: unknown net 'dynunett'. Did you mean 'dynunet'? Known: "]),
        ("steps: 10", "steps: 10\n  optimizer: adam",
         ["8: training.optimizer: 'adam' is not one of 'adamw' or 'sgd'. Did you mean 'adamw'?"]),
        ("patch: [32, 32, 32]", "patch: [32, 32, 32]\n  intensity:\n    method: zscor",
         ["7: plan.intensity.method: 'zscor' is not one of 'zscore', 'percentile', 'window'. Did you mean 'zscore'?"]),
        ("name: tiny", "name: Lung CT", ["1: name: 'Lung CT' is not allowed here: lower-case letters, digits"]),
        # A list whose only entry is wrong is not also too short.
        ("name: tiny", "name: tiny\nloss: {name: sum, terms: [{name: dize}]}",
         ["2: loss.terms.0.name: unknown loss 'dize'. Did you mean 'dice'?"]),
        # Combinations.
        ("steps: 10", "steps: 10\n  epochs: 2", ["6: training: steps (10) and epochs (2) both say how long"]),
        ("steps: 10", "rate: 1", ["6: training: give steps or epochs"]),
        ("32, 32, 32", "32, 32", ["5: plan.patch: has 2 numbers, but data.dimensions is 3"]),
        ("[a]", "[a, a]", ["2: data: labels: each name may stand once: a, a"]),
        ("[a]", "[]", ["3: data.labels: 0 entries; at least 1 wanted"]),
        ("name: tiny", "name: tiny\nname: other", ["2: name: this key stands twice (first on line 1)"]),
        ("name: tiny", "name: tiny\nsite: {}", ["2: site: unknown key. Did you mean 'sites'?"]),
    ],
)  # fmt: skip
def test_a_wrong_place_is_named_with_line_value_and_remedy(old: str, new: str, says: list[str]) -> None:
    found = said(GOOD.replace(old, new, 1))
    assert len(found) == len(says)
    for line, beginning in zip(found, says, strict=True):
        assert line.startswith(f"s.yaml:{beginning}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "s.yaml:1: the file is empty"),
        ("# nothing\n", "s.yaml:1: the file is empty"),
        ("- a\n", "s.yaml:1: the file must hold keys with values (key: value), but it is a list"),
        ("hello", "s.yaml:1: the file must hold keys with values (key: value), but it is a single value"),
        ("a: 1\n\tb: 2\n", "s.yaml:2: a tab character; YAML wants spaces"),
        ("a: b: c", "s.yaml:1: a second ':' in one line"),
        ("a: [1, 2", "s.yaml:1: not valid YAML"),
        ("a: 1\nb: \x01", "s.yaml:2: the character #x0001 may not stand in YAML"),
        ("? [a]\n: b", "s.yaml:1: a key must be text"),
        ("true: 1", "s.yaml:1: a key must be text"),
        ("a: !!python/object/apply:os.system [ls]", "s.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2", "s.yaml:2: not valid YAML"),
        ("a: &x 1\nb: *x", "s.yaml:2: aliases (*name) are not read"),
    ],
)
def test_what_is_no_study_at_all(text: str, says: str) -> None:
    assert said(text)[0].startswith(says)


def test_bombs_are_refused_at_once() -> None:
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
    )
    for text in (laughs, "[" * 100_000, "a: {" * 10_000, "x" * (MAX_BYTES + 1)):
        start = time.process_time()
        assert len(said(text)) == 1
        assert time.process_time() - start < 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "utf16.yaml").write_text("name: x", encoding="utf-16")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 10_000_000)
    for name, says in (
        ("none.yaml", "no such file"),
        (".", "is a folder"),
        ("utf16.yaml", "is not text in UTF-8"),
        ("huge.yaml", "more than 128 KiB"),
    ):
        with pytest.raises(StudyError, match=says):
            Document.read(tmp_path / name)


def test_scalars_are_those_of_yaml_1_2() -> None:
    # Values from the tables of section 10.3.2 of the YAML 1.2.2 specification.
    text = "a: [no, on, 12:30, 1e-3, 1E3, .5, 0, -1, 010, 2024-01-01, true, ~, '5', .inf]"
    found = Document(Path("s.yaml"), text).data["a"]
    assert found == ["no", "on", "12:30", 0.001, 1000.0, 0.5, 0, -1, 10, "2024-01-01", True, None, "5", float("inf")]


def test_unions_speak_of_the_member_that_was_meant() -> None:
    text = "name: x\ndata: x\nlabels:\n  a: {from: x}\n  b: 1.5\n  c: {from: 3, to: 1}\n"
    document = Document(Path("site.yaml"), text)
    with pytest.raises(StudyError) as caught:
        document.validate(SiteConfig, document.data)
    assert str(caught.value).splitlines() == [
        "site.yaml:4: labels.a.from: must be a number, but is 'x'",
        "site.yaml:5: labels.b: must be a whole number, but is 1.5",
        "site.yaml:6: labels.c: from (3) must not be above to (1)",
    ]
