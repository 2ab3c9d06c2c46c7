"""The model's file: whole or refused, the same net again, readable by others."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from common.bundle import CARD, KEY, WEIGHTS, model_hash, read_bundle, write_bundle
from common.errors import ModelError
from common.figures import Figures, Point, Scores
from common.nets import build_net
from common.study import Study
from common.wire import Schema, running_statistics

FIGURES = Figures(
    round=2, rounds=3, sites=2, cases=9, curve=(Point(round=1, dice=0.5),),
    test=Scores(sites=2, cases=3, dice=0.25, labels=(0.5, None)),
)  # fmt: skip


def study_of(buffers: str = "aggregate") -> Study:
    return Study.model_validate(
        {"name": "s", "data": {"labels": ["a", "b"], "dimensions": 2}, "plan": {"patch": [16, 16]},
         "training": {"steps": 2}, "net": {"name": "unet", "width": 2, "levels": 2, "norm": "batch"},
         "rounds": {"number": 3, "buffers": buffers}}
    )  # fmt: skip


def made(folder: Path, study: Study, local: bool = False) -> torch.nn.Module:
    torch.manual_seed(5)
    net = build_net(study)
    state = net.state_dict()
    for name in running_statistics(net):
        state[name].copy_(torch.rand(state[name].shape) * 9)
    own = {n: state[n] for n in running_statistics(net)} if local else None
    write_bundle(folder, study, "run-1", Schema.of(study).pack(state), FIGURES, local=own)
    return net.eval()


@pytest.mark.parametrize("name", ["folder", "file"])
def test_the_same_net_comes_back(tmp_path: Path, name: str) -> None:
    net = made(tmp_path / "model", study_of())
    found = read_bundle(tmp_path / "model" / (WEIGHTS if name == "file" else ""))
    x = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(found.net()(x), net(x))
    assert found.study == study_of()
    assert found.card.figures == FIGURES
    flat = Schema.of(study_of()).pack(net.state_dict())
    assert {k: v.tobytes() for k, v in found.flat().items()} == {k: v.tobytes() for k, v in flat.items()}


def test_others_read_it_without_us(tmp_path: Path) -> None:
    """safetensors and JSON alone: names and values of the tensors, the card, and the hash as it is described."""
    net = made(tmp_path, study_of())
    card = json.loads((tmp_path / CARD).read_text())
    total = sha256(b"fedscan model\0" + bytes.fromhex(study_of().digest()))
    with safe_open(tmp_path / WEIGHTS, framework="np") as opened:
        assert json.loads(opened.metadata()[KEY]) == card
        for name in sorted(opened.keys()):
            values = opened.get_tensor(name)
            assert (values == net.state_dict()[name].numpy()).all()
            about = json.dumps([name, values.dtype.name, list(values.shape)], separators=(",", ":"))
            total.update(about.encode() + values.tobytes())
    assert card["model"] == total.hexdigest()
    assert [(label["value"], label["name"]) for label in card["labels"]] == [(0, "background"), (1, "a"), (2, "b")]


def test_every_altered_byte_is_found(tmp_path: Path) -> None:
    made(tmp_path, study_of())
    raw = (tmp_path / WEIGHTS).read_bytes()
    head = 8 + int.from_bytes(raw[:8], "little")
    end = len(raw.rstrip())
    for place in [*range(0, head, 97), *range(head, end, 61), end - 1]:
        if raw[place : place + 1].isspace():
            continue
        changed = bytearray(raw)
        changed[place] ^= 0x01
        (tmp_path / WEIGHTS).write_bytes(changed)
        try:
            found = read_bundle(tmp_path)
        except ModelError:
            continue
        # What no hash covers is the story of the run: its name, numbers and versions; the model itself is the same.
        assert place < head
        (tmp_path / WEIGHTS).write_bytes(raw)
        whole = read_bundle(tmp_path)
        assert (found.study, found.card.model, found.card.labels) == (whole.study, whole.card.model, whole.card.labels)


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    made(tmp_path, study_of())
    raw = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(raw[:cut])
    with pytest.raises(ModelError, match="damaged"):
        read_bundle(tmp_path)


def test_weights_of_others_are_no_model(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match="no card"):
        read_bundle(tmp_path)
    with pytest.raises(ModelError, match="no such model"):
        read_bundle(tmp_path / "nothing")


def test_another_net_under_a_right_hash_is_refused(tmp_path: Path) -> None:
    """Whoever writes the hash anew still cannot bring tensors that the study's net does not have."""
    made(tmp_path, study_of())
    with safe_open(tmp_path / WEIGHTS, framework="pt") as opened:
        tensors = {n: opened.get_tensor(n) for n in opened.keys()}  # noqa: SIM118
        card = json.loads(opened.metadata()[KEY])
    first = sorted(tensors)[0]
    tensors[first] = tensors[first].repeat_interleave(2, 0)
    card["model"] = model_hash(card["digest"], tensors)
    save_file(tensors, tmp_path / WEIGHTS, metadata={KEY: json.dumps(card)})
    with pytest.raises(ModelError, match="not those of the study's net"):
        read_bundle(tmp_path)


def test_local_statistics_make_it_whole(tmp_path: Path) -> None:
    study = study_of("local")
    made(tmp_path / "global", study)
    net = made(tmp_path / "home", study, local=True)
    lacking, whole = read_bundle(tmp_path / "global"), read_bundle(tmp_path / "home")
    assert lacking.card.model == whole.card.model
    assert not lacking.complete
    with pytest.raises(ModelError, match="fedscan site model list"):
        lacking.net()
    x = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(whole.net()(x), net(x))
