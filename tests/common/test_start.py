"""The file with which a study begins: what is taken from it, and every way in which it can be the wrong one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.bundle import WEIGHTS, write_bundle
from common.cli import run
from common.documents import Document
from common.errors import ModelError, StudyError
from common.figures import Figures
from common.nets import build_net
from common.schema import Schema
from common.start import first_weights, random_weights, start_file
from common.study import Study, study_of
from common.study_check import check_study
from common.study_explain import facts, words

BASE: dict[str, Any] = {
    "name": "toy",
    "data": {"labels": ["liver"], "dimensions": 2},
    "plan": {"patch": [16, 16]},
    "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
    "training": {"steps": 3},
}
HEAD = {"head.weight", "head.bias"}


def study(start: dict[str, Any] | None = None, **changes: Any) -> Study:
    return Study.model_validate(BASE | ({"start": start} if start else {}) | changes)


def named(file: Path, /, **more: Any) -> dict[str, Any]:
    """What a study says of `file`; the hash by Python's own library, as `sha256sum` gives it."""
    return {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), **more}


def trained(seed: int = 99, made: Study | None = None) -> nn.Module:
    """A net that no study's seed gives; its running statistics are not those of a fresh one either."""
    torch.manual_seed(seed)
    net = build_net(made or study())
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    return net


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a finished model, as a run writes it."""
    made = study()
    flat = Schema.of(made).pack(trained().state_dict())
    write_bundle(tmp_path / "model", made, "run-1", flat, Figures(round=1, rounds=1, sites=2, cases=4))
    return tmp_path / "model"


def begun(made: Study, file: Path | None) -> dict[str, torch.Tensor]:
    """Every tensor of the net as the run begins, by name."""
    schema = Schema.of(made)
    net = build_net(made)
    schema.load(first_weights(made, schema, file), net)
    return net.state_dict()


def test_all_of_the_file_is_taken_bit_for_bit(model: Path) -> None:
    file = model / WEIGHTS
    wanted = trained().state_dict()
    found = begun(study(named(file)), file)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_body_alone_leaves_the_head_as_the_seed_makes_it(model: Path) -> None:
    """With other labels: the head has another size."""
    file = model / WEIGHTS
    made = study(named(file, parts="body"), data={"labels": ["a", "b", "c"], "dimensions": 2})
    found, theirs = begun(made, file), trained().state_dict()
    ours = begun(study(data=made.data.model_dump()), None)
    assert {n for n in found if n in HEAD} == HEAD
    assert found["head.weight"].shape[0] == 4
    for name, value in found.items():
        assert torch.equal(value, (ours if name in HEAD else theirs)[name]), name


def test_without_start_nothing_changes_and_the_file_is_not_in_the_digest(model: Path) -> None:
    made = study()
    torch.manual_seed(0)
    again = random_weights(made, Schema.of(made))
    assert all(np.array_equal(v, again[k]) for k, v in first_weights(made, Schema.of(made), None).items())
    file = model / WEIGHTS
    with_place, without = study(named(file, file="somewhere/else")), study(named(file))
    assert with_place.digest() == without.digest() != made.digest()
    assert b"somewhere" not in with_place.canonical()
    assert json.loads(without.canonical())["start"] == {"parts": "all", "sha256": named(file)["sha256"]}


def test_a_strategys_own_tensors_begin_at_zero(model: Path) -> None:
    file = model / WEIGHTS
    made = study(named(file), strategy={"name": "scaffold"})
    schema = Schema.of(made)
    flat = first_weights(made, schema, file)
    places = list(schema.places("control"))
    assert places
    assert all(not flat["float32"][p].any() for p in places)
    assert np.array_equal(flat["float32"][: schema.weights.sizes["float32"]],
                          first_weights(study(named(file)), schema.weights, file)["float32"])  # fmt: skip


def changed(folder: Path, name: str, value: torch.Tensor | None) -> Path:
    """The model without a card, one of its tensors another or gone."""
    tensors = {k: v.contiguous() for k, v in trained().state_dict().items() if k != name}
    file = folder / "changed.safetensors"
    save_file(tensors if value is None else {**tensors, name: value}, file)
    return file


WRONG = {
    "missing": ("", None, "is not in it"),
    "shape": ("head.weight", torch.zeros(5, 4, 1, 1), "is 5 × 4 × 1 × 1, the net's is 2 × 4 × 1 × 1"),
    "dtype": ("head.bias", torch.zeros(2, dtype=torch.float16), "is float16, the net's is float32"),
    "nan": ("head.bias", torch.tensor([0.0, torch.nan]), "holds NaN or infinite values"),
    "infinite": ("head.bias", torch.tensor([0.0, -torch.inf]), "holds NaN or infinite values"),
}


@pytest.mark.parametrize(("name", "value", "says"), WRONG.values(), ids=WRONG)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, name: str, value: torch.Tensor | None, says: str) -> None:
    name = name or next(n for n in trained().state_dict() if n not in HEAD)
    file = changed(tmp_path, name, value)
    made = study(named(file))
    with pytest.raises(ModelError) as caught:
        first_weights(made, Schema.of(made), file)
    assert f"{file}: does not fit the study's net: {name} {says}" in str(caught.value)
    hint = "start.parts: body" in str(caught.value)
    assert hint == (name in HEAD)


def test_a_variance_below_zero_is_refused(tmp_path: Path) -> None:
    (_, variance), *_ = Schema.of(study()).statistics()
    file = changed(tmp_path, variance.name, torch.full(variance.shape, -1.0))
    made = study(named(file))
    with pytest.raises(ModelError, match=rf"{variance.name} is below 0"):
        first_weights(made, Schema.of(made), file)


def test_another_file_than_the_studys_is_refused(model: Path, tmp_path: Path) -> None:
    file = model / WEIGHTS
    made = study(named(file))
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    other = tmp_path / "other.safetensors"
    other.write_bytes(raw)
    for wrong, says in ((other, "its hash is "), (tmp_path / "none", "cannot be read (No such file")):
        with pytest.raises(ModelError, match=rf"{wrong.name}: {says}".replace("(", r"\(")):
            first_weights(made, Schema.of(made), wrong)
    with pytest.raises(StudyError, match=r"was not given: name it in the study file as start\.file"):
        first_weights(made, Schema.of(made), None)


@pytest.mark.parametrize("raw", [b"", b"\x80\x04\x95", b"PK\x03\x04" + bytes(100)], ids=["empty", "pickle", "torch"])
def test_what_is_no_safetensors_is_refused_and_never_unpickled(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(raw)
    made = study(named(file))
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        first_weights(made, Schema.of(made), file)


def test_a_model_of_other_labels_is_no_start_of_all(model: Path) -> None:
    """The shapes are the same, so nothing but the card could tell."""
    file = model / WEIGHTS
    made = study(named(file), data={"labels": ["spleen"], "dimensions": 2})
    with pytest.raises(ModelError, match=r"outlines liver, the study's data.labels are spleen\. Give the same"):
        first_weights(made, Schema.of(made), file)
    body = study(named(file, parts="body"), data={"labels": ["spleen"], "dimensions": 2})
    assert first_weights(body, Schema.of(body), file)


def written(folder: Path, start: dict[str, Any], **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(json.dumps(BASE | {"start": start} | changes, indent=1))
    return path


def test_check_looks_into_the_file_that_is_there(model: Path, tmp_path: Path) -> None:
    start = named(model / WEIGHTS, file="model")
    made, remarks = check_study(written(tmp_path, start))
    assert start_file(made, tmp_path) == model / WEIGHTS
    assert not [r for r in remarks if ": start" in r]
    _, remarks = check_study(written(tmp_path, start, data={**BASE["data"], "channels": ["t2"]}))
    assert any("data.channels: the model of start.file learnt with another one (('image',))" in r for r in remarks)
    with pytest.raises(StudyError, match=r"study\.yaml:\d+: start: .*its hash is"):
        check_study(written(tmp_path, {**start, "sha256": "0" * 64}))
    _, remarks = check_study(written(tmp_path, {**start, "file": "elsewhere.safetensors"}))
    assert any("elsewhere.safetensors is not here" in r for r in remarks)


def test_the_command_gives_lines_for_the_study_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "start", str(model)]) == 0
    lines = capsys.readouterr().out
    text = "\n".join(f"{k}: {json.dumps(v)}" for k, v in BASE.items()) + "\n" + lines
    made = study_of(Document(Path("s.yaml"), text))
    assert made.start is not None
    assert made.start.sha256 == named(model / WEIGHTS)["sha256"]
    assert start_file(made, Path("/")) == model / WEIGHTS
    assert begun(made, model / WEIGHTS).keys() == trained().state_dict().keys()
    assert run(["study", "start", "--json", str(model)]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["liver"]


def test_people_who_approve_see_it(model: Path) -> None:
    made = study(named(model / WEIGHTS, parts="body"))
    known = facts(made)
    assert known["start"] == {"sha256": named(model / WEIGHTS)["sha256"], "parts": "body"}
    told = words(made, known)
    assert known["start"]["sha256"] in told
    assert "begins with given weights, not random ones (all but the layers that make the classes)" in told
    assert "begins with given weights" not in words(study(), facts(study()))
