"""Every strategy through the real rounds: killed and resumed, over serialised messages, and with a site that lies."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Proto

from client.data.patches import Batches
from client.training import Span, channels_last, make_optimizer, train
from common import wire
from common.losses import build_loss
from common.names import STRATEGIES
from common.nets import build_net
from common.seeds import derive
from common.wire import Schema
from server.checkpoint import Checkpoints
from server.events import read_events
from server.joining import join
from server.rounds import Run
from simulations.inline import FIRST_SITE, InlineGrid

FLOWERS = [{"name": "flower", "strategy": name} for name in ("FedAvgM", "FedAdam", "FedMedian", "Bulyan")]
CHOICES: list[dict[str, Any]] = [*({"name": n} for n in STRATEGIES.names() if n != "flower"), *FLOWERS]
KEEPS = [
    {"name": "fedavgm"},
    {"name": "fedadam"},
    {"name": "fedyogi"},
    {"name": "fedadagrad", "beta1": 0.5},
    {"name": "feddg_ga"},
    {"name": "cyclic"},
    {"name": "flower", "strategy": "FedAvgM", "server_momentum": 0.5},
    {"name": "flower", "strategy": "FedYogi"},
]


def named(choice: dict[str, Any]) -> str:
    return str(choice.get("strategy", choice["name"]))


def final(run: Run) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(run.folder / "checkpoints", run.study.digest(), Schema.of(run.study))
    return checkpoints.weights(checkpoints.state().round)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


def three(toy) -> None:
    for i, name in enumerate("abc"):
        toy.add(name, 100 * i, cases=2 + i)


class Dies(BaseException):
    pass


@pytest.mark.parametrize("choice", KEEPS, ids=named)
def test_killed_between_fold_and_checkpoint_it_ends_with_the_same_bits(toy, toy_study, monkeypatch, choice) -> None:
    """The memory on disk is then that of the round before, and the fold is made again from it."""
    three(toy)
    study = toy_study(strategy=choice, evaluation={"every": 3})
    undisturbed = final(toy.run(study, "undisturbed"))
    write = Checkpoints.write

    def dies_in_round_two(self, state, *rest):
        if state.round == 2:
            raise Dies
        write(self, state, *rest)

    with monkeypatch.context() as killed:
        killed.setattr(Checkpoints, "write", dies_in_round_two)
        with pytest.raises(Dies):
            toy.run(study)
    assert same(final(toy.run(study)), undisturbed)


def test_the_memory_is_the_rounds_and_only_the_newest_is_kept(toy, toy_study) -> None:
    three(toy)
    run = toy.run(toy_study(strategy={"name": "fedadam"}))
    folder = run.folder / "checkpoints"
    assert [p.name for p in folder.glob("server-*")] == ["server-00003.safetensors"]
    checkpoints = Checkpoints(folder, run.study.digest(), Schema.of(run.study))
    memory = checkpoints.memory(checkpoints.state())
    assert {name: set(flat) for name, flat in memory.items()} == {"first": {"float32"}, "second": {"float32"}}
    assert (memory["second"]["float32"] > 0).all()
    (folder / "server-00003.safetensors").unlink()
    with pytest.raises(Exception, match=r"server-00003\.safetensors is missing or damaged"):
        checkpoints.memory(checkpoints.state())


class Serialized(InlineGrid):
    """As between processes: nothing but bytes goes to a site and comes back."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return super().push_messages([again(m) for m in messages])

    def _answer(self, message: Message) -> Message:
        return again(super()._answer(message))


def again(message: Message) -> Message:
    proto = Proto.FromString(message_to_proto(message).SerializeToString())
    return message_from_proto(proto)


HALF = {"name": "half", "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("choice", "update"),
    [
        *((choice, "full") for choice in CHOICES),
        *((choice, "topk") for choice in CHOICES),
        *((CHOICES[0], u) for u in ("half", HALF, "int8")),
    ],
    ids=lambda c: c if isinstance(c, str) else named(c),
)
def test_serialised_messages_change_no_bit(toy, toy_study, choice, update) -> None:
    """However updates cross, and with every strategy, which sees them decoded."""
    for i, name in enumerate("abc"):
        toy.add(name, 100 * i, cases=2 + i)
    study = toy_study(strategy=choice, update=update, rounds={"number": 2}, evaluation={"every": 2})
    inline = final(toy.run(study, "inline"))
    grid, _ = toy.grid("bytes")
    grid.__class__ = Serialized
    members = list(join(grid, study).values())
    run = Run(grid, study, toy.folder / "bytes" / "run", members, members)
    run.start()
    assert same(final(run), inline)
    assert np.isfinite(inline["float32"]).all()


def test_cyclic_is_training_at_one_site_after_the_other(toy, toy_study) -> None:
    """Written here without any federation: three steps on a's batches, three on b's, and a's again with a's moments."""
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(strategy={"name": "cyclic"})
    run = toy.run(study)
    told = read_events(run.folder / "events.jsonl")
    assert [e["site"] for e in told if e["event"] == "trained"] == ["a", "b", "a"]

    torch.manual_seed(derive(study.seed, "weights"))
    net = channels_last(build_net(study))
    loss = build_loss(study, net)
    optimizers = {name: make_optimizer(net, study.training) for name in "ab"}
    for number, name in enumerate("aba"):
        cases = toy.sites[name](study).train
        stream = derive(study.seed, "batches", *sorted(c.content for c in cases))
        batches = (Batches(cases, study, stream).at(step) for step in range(3 * number, 3 * number + 3))
        train(net, loss, optimizers[name], batches, study.training, Span(3 * number, 3, 9))
    assert same(final(run), Schema.of(study).pack(net.state_dict()))


def test_the_two_losses_are_those_of_the_first_patches_before_and_after(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(strategy={"name": "feddg_ga"}, rounds={"number": 1})
    run = toy.run(study)
    alone = toy.run(toy_study(rounds={"number": 1}), "alone", ["a"])
    told = next(e for e in read_events(run.folder / "events.jsonl") if e["event"] == "trained" and e["site"] == "a")
    cases = toy.sites["a"](study).train
    stream = derive(study.seed, "batches", *sorted(c.content for c in cases))
    torch.manual_seed(derive(study.seed, "weights"))
    net = channels_last(build_net(study)).eval()
    for key in ("loss-received", "loss-trained"):
        with torch.no_grad():
            pairs = [Batches(cases, study, stream).at(step) for step in range(4)]
            expected = np.mean([build_loss(study, net)(net(image), label).item() for image, label in pairs])
        assert told[key] == pytest.approx(expected, rel=1e-6)
        Schema.of(study).load(final(alone), net)


# What the last site sends instead of its update; a NaN is refused before any strategy sees it.
LIES = {
    "sign flip": lambda values, base: base - 10 * (values - base),
    "scaled": lambda values, base: base + 1e4 * (values - base),
    "nan": lambda values, base: np.full_like(values, np.nan),
}
HOLD = {
    "sign flip": ["median", "trimmed_mean", "krum", "multi_krum", "geometric_median"],
    "scaled": ["median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "norm_clipping"],
}


def poisoned(toy, study, monkeypatch, lie: str, out: str) -> float:
    """The honest sites' mean validation Dice at the end, while the site `e` lies."""
    grid, _ = toy.grid(out)
    members = list(join(grid, study).values())
    honest, schema = wire.train_reply, Schema.of(study)

    def lies(message, flat, metrics):
        if message.metadata.dst_node_id == members[-1].node_id:
            base = wire.read_arrays(schema, message)["float32"]
            values = LIES[lie](flat["float32"].astype("float64"), base.astype("float64"))
            flat = {**flat, "float32": values.astype("float32")}
        return honest(message, flat, metrics)

    with monkeypatch.context() as patched:
        patched.setattr(wire, "train_reply", lies)
        run = Run(grid, study, toy.folder / out / "run", members, members, validate=members[:-1])
        run.start()
    events = read_events(run.folder / "events.jsonl")
    scores = [e["dice"] for e in events if e["event"] == "evaluated" and e["part"] == "validation"]
    return float(np.mean(scores[-4:]))


@pytest.mark.parametrize("lie", HOLD)
def test_robust_strategies_hold_where_fedavg_breaks(toy, toy_study, monkeypatch, lie: str) -> None:
    for i, name in enumerate("abcde"):
        toy.add(name, 100 * i)
    changes = {
        "training": {"steps": 8, "rate": 0.03}, "rounds": {"number": 4}, "evaluation": {"every": 4},
        "net": {"norm": "instance"},
    }  # fmt: skip
    broken = poisoned(toy, toy_study(**changes), monkeypatch, lie, "fedavg")
    held = {
        name: poisoned(toy, toy_study(strategy={"name": name}, **changes), monkeypatch, lie, name) for name in HOLD[lie]
    }
    assert broken < 0.6, (broken, held)
    assert min(held.values()) > 0.85, (broken, held)


def test_a_site_that_sends_nan_is_left_out_with_any_strategy(toy, toy_study, monkeypatch) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"number": 1})
    poisoned(toy, study, monkeypatch, "nan", "out")
    failed = [e for e in read_events(toy.folder / "out" / "run" / "events.jsonl") if e["event"] == "failed"]
    assert [(e["site"], e["round"]) for e in failed if "NaN" in e["why"] or e["why"].startswith("E_")] == [("b", 1)]
    kept = Checkpoints(Path(toy.folder / "out" / "run" / "checkpoints"), study.digest(), Schema.of(study))
    assert np.isfinite(kept.weights(1)["float32"]).all()


def test_a_variance_below_zero_is_refused_on_arrival(toy, toy_study, monkeypatch) -> None:
    """One site's alone would turn the others' outputs into NaN, with any strategy: buffers are always averaged."""
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"number": 1})
    (_, variance), *_ = Schema.of(study).statistics()
    honest = wire.train_reply

    def lies(message, flat, metrics):
        if message.metadata.dst_node_id == FIRST_SITE + 1:
            flat = {d: v.copy() for d, v in flat.items()}
            flat["float32"][variance.offset] = -1000
        return honest(message, flat, metrics)

    monkeypatch.setattr(wire, "train_reply", lies)
    run = toy.run(study)
    events = read_events(run.folder / "events.jsonl")
    assert [(e["site"], e["why"]) for e in events if e["event"] == "failed"] == [
        ("b", f"{variance.name} is below 0, which no variance is")
    ]
    assert [e["sites"] for e in events if e["event"] == "folded"] == [["a"]]
