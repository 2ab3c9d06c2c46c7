"""With `rounds.buffers: local` the final test is made with the best round's weights and the same round's statistics."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from client.evaluation import evaluate
from client.own_layers import load_own_layers
from client.training import channels_last
from common.nets import build_net
from common.wire import Schema
from server.rounds import Run


def test_final_test_uses_the_best_rounds_buffers(toy, toy_study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Round 1 is made the best of four; its statistics are copied when they are written, and the test done by hand."""
    copies = toy.folder / "copies"
    state = toy.folder / "out" / "sites" / "a" / "state" / "run"

    def falling(self: Run, now, flat) -> dict[str, float]:
        shutil.copytree(state, copies / str(now.round))
        return {"a": 1 / now.round}

    monkeypatch.setattr(Run, "_validate", falling)
    monkeypatch.setattr("server.rounds.best_after", lambda number, said, now, path: (1, 1.0))
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"buffers": "local", "number": 4}, training={"steps": 12, "rate": 0.02, "augment": "none"})
    run = toy.run(study)
    found = json.loads((toy.folder / "out/sites/a/results/run/round-00001-test.json").read_text())

    def by_hand(number: int) -> float:
        net = channels_last(build_net(study))
        Schema.of(study).load(run.best(), net)
        load_own_layers(net, study, load_file(copies / str(number) / f"round-{number:05d}.safetensors"))
        (result,) = evaluate(net, toy.sites["a"](study).test, study, torch.device("cpu"))
        return result.dice[0]

    assert found[0]["dice"]["disc"] == by_hand(1)
    assert by_hand(1) != by_hand(4), "the test must be able to fail"
