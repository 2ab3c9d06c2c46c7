"""What a round refuses: an update that says an impossible number of steps, and a mean that is not finite."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from client.app import make_app
from common import wire
from common.errors import RoundError
from common.wire import Flat
from server.events import read_events
from server.joining import join
from server.rounds import Run
from server.strategies.base import Fold
from server.strategies.fedavg import FedAvg
from simulations.inline import InlineGrid


class Boasting(InlineGrid):
    """The first site says that it did `steps` steps."""

    steps = 0.0

    def _answer(self, message: Message) -> Message:
        _, task = wire.read_instruction(message)
        place = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
        reply = super()._answer(message)
        if task.kind == "train" and place == 0:
            reply.content[wire.METRICS]["steps"] = self.steps
        return reply


@pytest.mark.parametrize("steps", [0, 1e-300, 0.5, 2.5, 4])
def test_steps_that_nobody_can_have_done_are_refused(toy: Any, toy_study: Any, steps: float) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(strategy={"name": "fednova"}, rounds={"number": 1})
    _, sites = toy.grid()
    grid = Boasting(make_app(lambda c: sites[int(c.node_config["partition-id"])]), len(sites))
    grid.steps = steps
    members = list(join(grid, study).values())
    run = Run(grid, study, toy.folder / "run", members, members)
    run.start()
    (failed,) = [e for e in read_events(run.folder / "events.jsonl") if e["event"] == "failed"]
    assert (failed["site"], failed["round"]) == ("a", 1)
    assert "steps" in failed["why"]


def test_a_mean_that_is_not_finite_ends_the_run_and_keeps_the_rounds_before(
    toy: Any, toy_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.add("a", 0)
    fold = FedAvg.fold

    def broken(self: FedAvg, fold_: Fold) -> Flat:
        flat = fold(self, fold_)
        if fold_.round == 2:
            flat["float32"][3] = float("nan")
        return flat

    monkeypatch.setattr(FedAvg, "fold", broken)
    with pytest.raises(RoundError, match=r"round 2: fedavg made numbers .* not finite"):
        toy.run(toy_study())
    folder: Path = toy.folder / "out" / "run"
    assert [e["round"] for e in read_events(folder / "events.jsonl") if e["event"] == "checkpoint"] == [1]
