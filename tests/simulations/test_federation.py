"""The laws of a federation, bit for bit, through the real app, grid and rounds."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from client.corrections import Proximal
from client.data.patches import Batches
from client.site import SiteConfig
from client.training import Span, channels_last, make_optimizer, train
from common import wire
from common.errors import DataError, RoundError
from common.losses import build_loss
from common.nets import build_net
from common.seeds import derive
from common.study_training import Training
from common.wire import Schema
from server.checkpoint import Checkpoints
from server.events import read_events
from server.exchange import Stopped
from server.joining import join
from server.rounds import Run
from simulations.sites import Field


def final(run) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(run.folder / "checkpoints", run.study.digest(), Schema.of(run.study))
    return checkpoints.weights(checkpoints.state().round)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_site_equals_local_training(toy, toy_study, norm: str, optimizer: str) -> None:
    """Three rounds of three steps are one training of nine steps, written here without any federation."""
    toy.add("a", 0)
    study = toy_study(net={"norm": norm}, training={"optimizer": optimizer})
    run = toy.run(study)

    cases = toy.sites["a"](study).train
    torch.manual_seed(derive(study.seed, "weights"))
    net = channels_last(build_net(study))
    stream = derive(study.seed, "batches", *sorted(c.content for c in cases))
    batches = (Batches(cases, study, stream).at(step) for step in range(9))
    loss = build_loss(study, net)
    train(net, loss, make_optimizer(net, study.training), batches, study.training, Span(0, 9, 9))
    assert same(final(run), Schema.of(study).pack(net.state_dict()))


def test_identical_sites_equal_one(toy, toy_study) -> None:
    toy.add("a", 0)
    alone = final(toy.run(toy_study(), "alone"))
    toy.sites["b"] = toy.sites["c"] = toy.sites["a"]
    assert same(alone, final(toy.run(toy_study(), "together")))


def test_mu_zero_is_fedavg_and_mu_pulls(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    average = final(toy.run(toy_study(), "avg"))
    zero = final(toy.run(toy_study(strategy={"name": "fedprox", "mu": 0.0}), "zero"))
    assert same(average, zero)
    start = Schema.of(toy_study()).pack(_initial(toy_study()))["float32"]
    moved = [
        np.linalg.norm(final(toy.run(toy_study(strategy={"name": "fedprox", "mu": mu}), f"mu{mu}"))["float32"] - start)
        for mu in (0.1, 10.0, 1000.0)
    ]
    assert np.linalg.norm(average["float32"] - start) > moved[0] > moved[1] > moved[2]


def _initial(study):
    torch.manual_seed(derive(study.seed, "weights"))
    return build_net(study).state_dict()


def test_proximal_gradient_is_mu_times_distance() -> None:
    """Closed form: on a linear loss plain SGD steps are −η(g + μ(w − w_g)), also in the second batch."""
    net = torch.nn.Linear(2, 1, bias=False)
    w0 = net.weight.detach().clone()
    settings = Training(
        optimizer="sgd", rate=0.1, momentum=0.0, weight_decay=0.0, schedule="constant", steps=3, clip=None
    )
    image = torch.ones(1, 2, 1, 1)

    class Sum(torch.nn.Module):
        def forward(self, output, label):
            return output.sum()

    class OnPixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x):
            return self.inner(x[:, :, 0, 0])

    model = OnPixels()
    batches = [(image, torch.zeros(1))] * 3
    train(model, Sum(), make_optimizer(model, settings), batches, settings, Span(0, 3, 3), Proximal(2.0))
    expected = w0.clone()
    for _ in range(3):
        expected -= 0.1 * (torch.ones(1, 2) + 2.0 * (expected - w0))
    torch.testing.assert_close(net.weight.detach(), expected)


def test_a_failing_site_never_stops_the_round(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study()
    grid, sites = toy.grid()
    working = sites[1].steps
    calls = iter(range(100))

    def fails_in_round_two(study):
        if next(calls) == 2:  # after joining and the first round
            raise DataError("/scans/DOE^JANE.nii: gone")
        return working(study)

    sites[1].steps = fails_in_round_two
    members = list(join(grid, study).values())
    events = toy.folder / "run" / "events.jsonl"
    state = Run(grid, study, events.parent, members, members).start()
    failed = [(e["round"], e["site"], e["why"]) for e in read_events(events) if e["event"] == "failed"]
    assert state.round == 3
    assert failed == [(2, "b", "E_DATA")]
    assert "DOE" not in events.read_text()


def test_nan_at_a_site_is_left_out(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    image = toy.sites["b"](toy_study()).train[0].folder / "image.npy"
    np.save(image, np.full((1, 16, 16), np.nan, "float32"))
    run = toy.run(toy_study(training={"augment": "none"}))
    failed = [e for e in read_events(run.folder / "events.jsonl") if e["event"] == "failed"]
    assert {(e["site"], e["why"]) for e in failed} == {("b", "E_TRAINING")}
    assert np.isfinite(final(run)["float32"]).all()


def test_missed_quorum_says_what_to_do_and_resumes(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"quorum": 1.0})
    good = toy.sites["b"](study)
    broken = good.train[0].folder / "image.npy"
    bytes_before = broken.read_bytes()
    np.save(broken, np.full((1, 16, 16), np.nan, "float32"))
    with pytest.raises(RoundError, match=r"round 1: 1 of 2 sites.*quorum.*--resume"):
        toy.run(study)
    broken.write_bytes(bytes_before)
    resumed = final(toy.run(study))
    assert same(resumed, final(toy.run(study, "undisturbed")))


def test_a_late_site_is_left_out(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"deadline": 2.0, "number": 1})
    toy.run(study, "warm")  # imports and first kernels are not what is timed
    grid, sites = toy.grid()
    sites[1].on_step = lambda: time.sleep(1.0)
    members = list(join(grid, study).values())
    run = Run(grid, study, toy.folder / "late", members, members)
    run.start()
    assert [e["sites"] for e in read_events(run.folder / "events.jsonl") if e["event"] == "folded"] == [["a"]]


@pytest.mark.parametrize("weights", ["cases", "patches", "equal"])
def test_weights(toy, toy_study, weights: str) -> None:
    toy.add("a", 0, cases=2)
    toy.add("b", 100, cases=6)
    study = toy_study(rounds={"number": 1, "weights": weights}, net={"norm": "none"})
    both = final(toy.run(study, "both"))["float32"]
    one = final(toy.run(study, "one", ["a"]))["float32"].astype("float64")
    two = final(toy.run(study, "two", ["b"]))["float32"].astype("float64")
    share = 0.25 if weights == "cases" else 0.5
    np.testing.assert_array_equal(both, (share * one + (1 - share) * two).astype("float32"))


def test_local_buffers_stay_at_their_site(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"buffers": "local"})
    assert not any("running" in e.name or "tracked" in e.name for e in Schema.of(study).entries)
    run = toy.run(study)
    assert set(final(run)) == {"float32"}
    assert list((toy.folder / "out" / "sites" / "a" / "state" / "run").glob("*.safetensors"))


def test_run_folder_holds_no_pickle(toy, toy_study) -> None:
    toy.add("a", 0)
    run = toy.run(toy_study())
    assert {p.suffix for p in Path(run.folder).rglob("*") if p.is_file()} == {".json", ".jsonl", ".safetensors"}


def test_the_pooled_site_makes_as_many_updates_as_a_site_on_average(toy, toy_study, monkeypatch) -> None:
    """With epochs the sites' T differ; pooled T is their mean, however many cases are in the pool."""
    toy.add("a", 0, cases=2)
    toy.add("b", 100, cases=6)
    study = toy_study(training={"steps": None, "epochs": 2})
    monkeypatch.setattr("simulations.sites.prepare", lambda study, site, **_: toy.sites[site.name](study))
    configs = tuple(SiteConfig(name=name, data=Path()) for name in toy.sites)
    opened = Field(configs, toy.folder / "cache", toy.folder / "homes").open()
    assert [s.steps(study) for s in opened] == [2, 6, 4]
    assert len(opened[-1].data(study).train) == 8


def test_a_round_that_a_site_did_not_validate_is_never_the_best(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study()
    grid, sites = toy.grid()
    members = list(join(grid, study).values())
    run = Run(grid, study, toy.folder / "run", members, members)
    load, calls = sites[1].data, iter(range(100))

    def misses_the_last_validation(study):
        raise_now = next(calls) == 8  # three rounds of training (2 looks each), then the third validation
        if raise_now:
            raise DataError("gone")
        return load(study)

    sites[1].data = misses_the_last_validation
    state = run.start()
    events = read_events(run.folder / "events.jsonl")
    missed = [e["round"] for e in events if e["event"] == "failed"]
    assert missed
    assert state.best_round not in missed


@pytest.mark.parametrize(
    ("metric", "value"), [("num-examples", 5), ("num-examples", 0), ("steps", 4), ("loss", float("nan"))]
)
def test_a_site_cannot_claim_more_than_it_joined_with(toy, toy_study, monkeypatch, metric: str, value: float) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"number": 1})
    grid, _ = toy.grid()
    honest = wire.train_reply
    replies = iter((False, True))

    def lies(message, flat, metrics):
        return honest(message, flat, {**metrics, metric: value} if next(replies) else metrics)

    monkeypatch.setattr(wire, "train_reply", lies)
    members = list(join(grid, study).values())
    run = Run(grid, study, toy.folder / "run", members, members)
    run.start()
    assert [e["sites"] for e in read_events(run.folder / "events.jsonl") if e["event"] == "folded"] == [["a"]]


def test_a_fold_that_was_begun_is_made_again_from_the_same_replies(toy, toy_study, monkeypatch) -> None:
    """A late reply must not change weights that sites may have seen already."""
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"number": 1, "quorum": 0.5})
    alone = final(toy.run(study, "alone", ["a"]))
    grid, sites = toy.grid()
    members = list(join(grid, study).values())

    def run() -> Run:
        return Run(grid, study, toy.folder / "out" / "run", members, members)

    steps, sites[1].steps = sites[1].steps, lambda study: 1 // 0
    with monkeypatch.context() as killed:
        killed.setattr(Run, "_validate", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            run().start()
    sites[1].steps = steps  # it could answer now
    run().start()
    events = read_events(toy.folder / "out" / "run" / "events.jsonl")
    assert [e["sites"] for e in events if e["event"] == "folded"] == [["a"]]
    assert same(final(run()), alone)


def test_a_run_that_is_stopped_goes_on(toy, toy_study) -> None:
    toy.add("a", 0)
    study, stop = toy_study(), threading.Event()
    grid, sites = toy.grid()
    members = list(join(grid, study).values())
    sites[0].on_step = stop.set
    with pytest.raises(Stopped):
        Run(grid, study, toy.folder / "out" / "run", members, members, stop=stop).start()
    sites[0].on_step = lambda: None
    run = Run(grid, study, toy.folder / "out" / "run", members, members, stop=threading.Event())
    run.start()
    assert same(final(run), final(toy.run(study, "undisturbed")))


def test_a_site_with_a_path_for_a_name_is_left_out_and_a_name_stands_once(toy, toy_study) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    grid, sites = toy.grid()
    sites[1].config = SiteConfig.model_construct(name="../../x", data=Path())
    assert list(join(grid, toy_study())) == ["a"]
    sites[1].config = sites[0].config
    with pytest.raises(RoundError, match="two nodes say that they are the site a"):
        join(grid, toy_study())


def test_an_unexpected_error_at_a_site_is_a_code(toy, toy_study, monkeypatch) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    grid, sites = toy.grid()
    study = toy_study(rounds={"number": 1})
    members = list(join(grid, study).values())

    def out_of_memory(study):
        raise MemoryError("/scans/DOE^JANE.nii")

    sites[1].steps = out_of_memory
    run = Run(grid, study, toy.folder / "run", members, members)
    run.start()
    failed = [e for e in read_events(run.folder / "events.jsonl") if e["event"] == "failed"]
    assert [(e["site"], e["why"]) for e in failed] == [("b", "E_FEDSCAN")]
