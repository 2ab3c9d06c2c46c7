"""What strategies keep at a site: a reply that is lost puts no site ahead, and messages on a wire change no bit."""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from safetensors.torch import load_file
from torch import nn

from client.app import make_app
from client.training import Progress
from client.work.midround import Midround
from common import wire
from common.bundle import read_bundle
from common.errors import ModelError
from common.nets import build_net
from common.start import random_weights
from common.study import Study
from common.wire import Flat, Schema
from server.checkpoint import Checkpoints
from server.events import read_events
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid

# One of each kind of state at a site: control variate, h, previous net, personal net, own layers, and head first.
STRATEGIES: list[dict[str, Any]] = [
    {"name": "scaffold"},
    {"name": "feddyn", "alpha": 0.5},
    {"name": "moon", "mu": 2.0},
    {"name": "ditto"},
    {"name": "fedper"},
    {"name": "fedrep"},
    {"name": "fedbn"},
    {"name": "silobn"},
]
# What coded updates could not say is such a state too; beside a control variate that crosses uncoded, and another sum.
CODED: list[dict[str, Any]] = [
    {"update": {"name": "int8", "block": 16}},
    {"update": {"name": "topk", "share": 0.05}},
    {"update": "int8", "strategy": {"name": "scaffold"}},
    {"update": "topk", "strategy": {"name": "feddyn", "alpha": 0.5}},
    {"update": "int8", "strategy": {"name": "fedbn"}, "training": {"freeze": ["down.*"]}},
]
CHOICES = [*({"strategy": choice} for choice in STRATEGIES), *CODED]


def named(choice: dict[str, Any]) -> str:
    return "-".join(str(c if isinstance(c, str) else c.get("name", "frozen")) for c in choice.values())


EACH = pytest.mark.parametrize("choice", CHOICES, ids=named)


class Network(InlineGrid):
    """Every message crosses as bytes; of the sites at `place` the training of `rounds` is lost, after or before it.

    Args:
        app: Of the sites.
        sites: How many there are.
        place: The site on the bad line.
        rounds: Of which the message is lost.
        after: Whether the site does its work, and its reply is lost; else it is never asked.
    """

    def __init__(self, app: Any, sites: int, place: int = -1, rounds: tuple[int, ...] = (), after: bool = True) -> None:
        super().__init__(app, sites)
        self._lost = {(place, number) for number in rounds}
        self._after = after

    def _answer(self, message: Message) -> Message:
        sent = message_from_proto(message_to_proto(message))
        _, task = wire.read_instruction(sent)
        place = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
        if task.kind == "train" and (place, task.round) in self._lost:
            if self._after:
                assert not super()._answer(sent).has_error()
            return wire.error_reply(message, "E_FEDSCAN")
        reply = super()._answer(sent)
        return message_from_proto(message_to_proto(reply))


def run(toy: Any, study: Study, out: str, **network: Any) -> Run:
    _, sites = toy.grid(out)
    grid = Network(make_app(lambda c: sites[int(c.node_config["partition-id"])]), len(sites), **network)
    members = list(join(grid, study).values())
    made = Run(grid, study, toy.folder / out / "run", members, members)
    made.start()
    return made


def final(made: Run) -> Flat:
    checkpoints = Checkpoints(made.folder / "checkpoints", made.study.digest(), Schema.of(made.study))
    state = checkpoints.state()
    assert state is not None
    return checkpoints.weights(state.round)


def kept(toy: Any, out: str, site: str) -> dict[str, torch.Tensor]:
    """What the site kept of the last round."""
    return load_file(max((toy.folder / out / "sites" / site / "state" / "run").iterdir()))


def same(one: Flat, two: Flat) -> bool:
    return one.keys() == two.keys() and all(one[k].tobytes() == two[k].tobytes() for k in one)


@pytest.fixture
def study(toy: Any, toy_study: Callable[..., Study], choice: dict[str, Any]) -> Study:
    toy.add("a", 0)
    toy.add("b", 100)
    return toy_study(**choice)


@EACH
def test_messages_as_bytes_change_no_bit(toy, study: Study) -> None:
    inline, on_wire = toy.run(study, "inline"), run(toy, study, "wire")
    assert same(final(inline), final(on_wire))
    for site in ("a", "b"):
        one, two = kept(toy, "inline", site), kept(toy, "wire", site)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[k], two[k]) for k in one)


@EACH
def test_a_lost_reply_never_puts_a_site_ahead(toy, study: Study) -> None:
    """A site whose reply of round 2 is lost ends as one that never was asked in that round."""
    lost = run(toy, study, "lost", place=1, rounds=(2,))
    idle = run(toy, study, "idle", place=1, rounds=(2,), after=False)
    assert same(final(lost), final(idle))
    one, two = kept(toy, "lost", "b"), kept(toy, "idle", "b")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    failed = [e["round"] for e in read_events(lost.folder / "events.jsonl") if e["event"] == "failed"]
    assert failed == [2]


NEEDED = ("scaffold", "feddyn", "fedper", "fedbn")


@pytest.mark.parametrize("name", ["fedavg", "ditto", *NEEDED])
def test_a_site_that_lost_its_state_stays_out_where_the_rest_counts_on_it(toy, toy_study, name: str) -> None:
    """A control variate that began anew would turn the coordinator's wrong for good; kept moments may begin anew."""
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(strategy={"name": name})
    grid, _ = toy.grid()
    members = list(join(grid, study).values())

    def lose(event: dict[str, Any]) -> None:
        if event["event"] == "folded" and event["round"] == 1:
            shutil.rmtree(toy.folder / "out" / "sites" / "b" / "state")

    made = Run(grid, study, toy.folder / "out" / "run", members, members, listener=lose)
    made.start()
    events = read_events(made.folder / "events.jsonl")
    failed = [(e["site"], e["round"]) for e in events if e["event"] == "failed"]
    assert failed == ([("b", 2), ("b", 3)] if name in NEEDED else [])
    assert all("E_CHECKPOINT" in e["why"] for e in events if e["event"] == "failed")


class Interrupted(BaseException):
    """As the trainer is stopped."""


@EACH
def test_a_round_that_is_interrupted_ends_with_the_same_bits(
    toy, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Site b is stopped after two of three steps of round 2, and goes on from what it wrote down."""
    monkeypatch.setattr("client.work.midround.EVERY", 0.0)
    monkeypatch.setattr("client.work.midround.SHARE", 1e9)
    calm = toy.run(study, "calm")
    grid, sites = toy.grid("stopped")
    members = list(join(grid, study).values())
    steps = iter(range(1, 100))
    begun: list[Midround] = []

    def progress(stream: int, count: int) -> Progress:
        begun.append(Midround(toy.folder / "midround", f"{stream} {len(begun) - (len(begun) > 1)} {count}"))
        return begun[-1]

    def on_step() -> None:
        if next(steps) == 5:
            raise Interrupted

    sites[1].progress, sites[1].on_step = progress, on_step

    def go() -> Run:
        made = Run(grid, study, toy.folder / "stopped" / "run", members, members)
        made.start()
        return made

    with pytest.raises(Interrupted):
        go()
    made = go()
    assert begun[2].done == 3
    assert begun[2]._key == begun[1]._key
    assert same(final(made), final(calm))
    one, two = kept(toy, "stopped", "b"), kept(toy, "calm", "b")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not [e for e in read_events(made.folder / "events.jsonl") if e["event"] == "failed"]


def _of_norms(net: nn.Module) -> set[str]:
    norms = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return {name for name in net.state_dict() if name.rpartition(".")[0] in norms}


OWN: dict[str, Callable[[nn.Module], set[str]]] = {
    "fedper": lambda net: {"head.weight", "head.bias"},
    "fedrep": lambda net: {"head.weight", "head.bias"},
    "fedbn": _of_norms,
    "silobn": lambda net: {name for name in _of_norms(net) if not name.endswith(("weight", "bias"))},
}


@pytest.mark.parametrize("name", OWN)
def test_own_layers_differ_from_site_to_site_and_are_not_sent(toy, toy_study, name: str) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(strategy={"name": name})
    run = toy.run(study)
    one, two = ({k: v for k, v in kept(toy, "out", s).items() if k.startswith("own.")} for s in ("a", "b"))
    net = build_net(study)
    assert one.keys() == two.keys() == {f"own.{n}" for n in OWN[name](net)}
    assert any(not torch.equal(one[k], two[k]) for k in one)
    assert {e.name for e in Schema.of(study).entries} == net.state_dict().keys() - OWN[name](net)
    with pytest.raises(ModelError, match="leaves layers with the sites"):
        read_bundle(run.folder / "model").net()


def test_silobn_is_fedavg_with_local_buffers(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    silo = toy.run(toy_study(strategy={"name": "silobn"}), "silo")
    local = toy.run(toy_study(rounds={"buffers": "local"}), "local")
    assert same(final(silo), final(local))


def test_dittos_global_model_is_fedavgs(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    ditto = toy.run(toy_study(strategy={"name": "ditto"}), "ditto")
    assert same(final(ditto), final(toy.run(toy_study(), "average")))
    assert any(k.startswith("personal.net.") for k in kept(toy, "ditto", "a"))


def test_one_site_alone_with_scaffold_is_fedavg(toy, toy_study) -> None:
    """c and c_k are then the same, up to rounding, so nothing is added to any gradient."""
    toy.add("a", 0)
    training = {"optimizer": "sgd", "momentum": 0.9}
    alone = final(toy.run(toy_study(strategy={"name": "scaffold"}, training=training), "scaffold"))["float32"]
    average = final(toy.run(toy_study(training=training), "average"))["float32"]
    np.testing.assert_allclose(alone[: average.size], average, atol=1e-6)
    assert np.abs(alone[average.size :]).max() > 0


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "median", "norm_clipping", "scaffold"])
def test_frozen_parameters_are_the_first_ones_at_the_end(toy, toy_study, strategy: str) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    made = toy.run(toy_study(strategy=strategy, training={"freeze": ["down.*"]}, rounds={"number": 2}))
    schema = Schema.of(made.study)
    first = random_weights(made.study, schema)
    last = final(made)
    for entry in schema.entries:
        same_bits = first[entry.dtype][entry.place].tobytes() == last[entry.dtype][entry.place].tobytes()
        assert same_bits == (entry.kind == "frozen"), entry.name
    assert any(e.kind == "frozen" for e in schema.entries)
