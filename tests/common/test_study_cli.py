import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from common.cli import run
from common.documents import Document
from common.errors import StudyError
from common.study import load_study, study_of
from common.study_check import check_study
from common.study_explain import facts
from common.study_schema import schema_text, study_schema

ROOT = Path(__file__).parent.parent.parent
STUDIES = sorted([*(ROOT / "examples").glob("*.yaml"), ROOT / "simulations" / "phantom.yaml"])


def text_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def small(
    tmp_path: Path, more: str = "", patch: str = "[32, 32, 32]", net: str = "{name: dynunet, size: small}"
) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        f"name: small\ndata: {{labels: [a, b]}}\nplan:\n  spacing: [1, 1, 1]\n  patch: {patch}\nnet: {net}\n"
        f"training: {{steps: 10}}\nrounds: {{number: 5}}\nevaluation: {{every: 2}}\n{more}"
    )
    return path


@pytest.mark.parametrize("dimensions", ["2", "3"])
def test_new_writes_a_study_that_check_accepts_without_a_note(
    dimensions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "My Study.yaml"
    assert run(["study", "new", str(path), "--dimensions", dimensions, "--labels", "liver, spleen"]) == 0
    study, notes = check_study(path)
    assert (study.name, study.data.labels, notes) == ("my-study", ("liver", "spleen"), [])
    before = path.read_text()
    assert run(["study", "new", str(path)]) == 2
    assert path.read_text() == before
    assert run(["study", "new", str(path), "--force"]) == 0
    assert load_study(path).data.labels == ("structure",)
    assert "--force" in capsys.readouterr().err


def test_new_refuses_labels_that_no_study_may_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "new", str(tmp_path / "s.yaml"), "--labels", "Left Lung"]) == 2
    assert "data.labels.0: 'Left Lung' is not allowed here" in capsys.readouterr().err
    assert not (tmp_path / "s.yaml").exists()


def test_check_prints_the_digest_or_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small(tmp_path, "sites: {a: {data: x}}\n")
    assert run(["study", "check", str(path)]) == 0
    printed = text_of(capsys)
    assert f"digest {load_study(path).digest()}" in printed
    assert "small.yaml:10: sites: for simulations only: outside the digest" in printed
    path.write_text(path.read_text().replace("steps: 10", "stepps: 10"))
    assert run(["study", "check", str(path)]) == 2
    assert "small.yaml:7: training.stepps: unknown key. Did you mean 'steps'?" in capsys.readouterr().err


def test_check_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small(tmp_path)
    assert run(["study", "check", "--json", str(path)]) == 0
    result = json.loads(text_of(capsys))
    assert (result["valid"], result["digest"]) == (True, load_study(path).digest())
    path.write_text("name: x\n")
    assert run(["study", "check", "--json", str(path)]) == 2
    result = json.loads(text_of(capsys))
    assert result["valid"] is False
    assert len(result["errors"]) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch": "[32, 36, 32]"}, "small.yaml:5: plan.patch: plan.patch [32, 36, 32] does not fit net dynunet"),
        ({"net": "{name: dynunet, strides: [[2, 2]]}"}, "small.yaml:6: net.strides:"),
        ({"net": "{name: dynunet, strides: [[2, 2], [2, 2]]}"}, "small.yaml:6: net: net.strides: each step needs 3"),
        (
            {"more": "loss: {name: ce, class_weights: [1, 2]}\n"},
            "small.yaml:10: loss: loss.class_weights has 2 numbers",
        ),
        (
            {"more": "loss: {name: sum, terms: [ce, {name: focal, class_weights: [1]}]}\n"},
            "small.yaml:10: loss.terms.1.class_weights: 1 entries; at least 2 wanted",
        ),
        (
            {"more": "loss: {name: sum, terms: [ce, {name: focal, class_weights: [1, 2]}]}\n"},
            "small.yaml:10: loss: loss.terms.1.class_weights has 2 numbers, but there are 3 classes",
        ),
    ],
)
def test_check_tries_net_and_loss(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        check_study(small(tmp_path, **changes))
    assert says in str(caught.value)


def test_check_remarks_on_what_may_be_unintended(tmp_path: Path) -> None:
    path = small(tmp_path)
    text = path.read_text().replace("[1, 1, 1]", "[1, 1, 3]").replace("steps: 10", "steps: 10, warmup: 50")
    path.write_text(text.replace("every: 2", "test: 0, validation: 0"))
    keys = [remark.split(": ")[1] for remark in check_study(path)[1]]
    assert keys == ["plan.spacing", "training.warmup", "evaluation.validation", "evaluation.test"]


def test_a_personal_model_that_nothing_uses_is_remarked_on(tmp_path: Path) -> None:
    path = small(tmp_path, more="strategy: ditto\n")
    (remark,) = check_study(path)[1]
    assert remark.split(": ")[1] == "strategy"
    path.write_text(path.read_text().replace("every: 2", "every: 2, own: {finetune: 0}"))
    assert check_study(path)[1] == []


def test_explain_counts_what_crosses(tmp_path: Path) -> None:
    known = facts(load_study(small(tmp_path)))
    # By hand: 5 rounds send an update each; 5 rounds, the validations after 2, 4 and 5 and the test receive weights.
    n = known["net"]["parameters"]
    assert known["update"] == {"arrays": {"float32": n}, "bytes": 4 * n}
    assert known["validations"] == 3
    assert known["bytes_per_site"] == {"sent": 5 * 4 * n, "received": (5 + 3 + 1) * 4 * n}
    assert known["steps_per_site"] == 50
    # Weights, gradients and AdamW's two moments.
    assert known["memory"]["weights"] == 4 * 4 * n
    assert {"dice.a", "dice.b", "cases.a", "cases.b"} < set(known["leaves"]["every validation and the final test"])


def test_local_running_statistics_do_not_leave(tmp_path: Path) -> None:
    net = "{name: dynunet, size: small, norm: batch}"
    shared = facts(load_study(small(tmp_path, net=net)))
    path = small(tmp_path, net=net)
    path.write_text(path.read_text().replace("number: 5", "number: 5, buffers: local"))
    local = facts(load_study(path))
    assert local["update"]["arrays"] == {"float32": local["net"]["parameters"]}
    assert shared["update"]["arrays"]["float32"] > local["update"]["arrays"]["float32"]


def test_explain_speaks_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small(tmp_path, "strategy: {name: fedprox, mu: 0.1}\n")
    assert run(["study", "explain", str(path)]) == 0
    printed = text_of(capsys)
    for words in ("What runs at your site", "mu: 0.1  (Strength of the pull; 0 is FedAvg.)", "What leaves your site",
                  "What never leaves your site", "mean Dice of a", "In all, per site"):  # fmt: skip
        assert words in printed
    assert run(["study", "explain", "--json", str(path)]) == 0
    assert json.loads(text_of(capsys))["digest"] == load_study(path).digest()


def test_published_schema_is_up_to_date() -> None:
    published = (ROOT / "docs" / "study.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run `fedscan study schema > docs/study.schema.json`"


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_schema_and_model_accept_the_examples(path: Path) -> None:
    document = Document.read(path)
    study_of(document)
    jsonschema.Draft202012Validator.check_schema(study_schema())
    jsonschema.validate(document.data, study_schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "change",
    [
        {"net": {"name": "dynunet", "siz": "small"}},
        {"net": {"name": "dynunet", "size": "tiny"}},
        {"net": "dynunett"},
        {"strategy": {"name": "fedprox", "mu": -1}},
        {"training": {"steps": 0}},
        {"data": {"labels": ["a"], "ignore": 0}},
        {"data": {"labels": ["a"], "ignore": 2**16}},
        {"training": {"steps": 1, "epochs": 1}},
        {"plan": {"patch": [4, 4, 4]}},
        {"plan": {"patch": [32, 32, 32], "intensity": {"method": "zscor"}}},
        {"trainin": {}},
    ],
    ids=str,
)
def test_schema_and_model_refuse_the_same(change: dict[str, Any]) -> None:
    written = {"name": "t", "data": {"labels": ["a"]}, "plan": {"patch": [32, 32, 32]}, "training": {"steps": 1}}
    validator = jsonschema.Draft202012Validator(study_schema())
    assert validator.is_valid(written)
    assert not validator.is_valid(written | change)
    with pytest.raises(StudyError):
        study_of(Document(Path("s.yaml"), json.dumps(written | change)))
