"""Do no harm: a site ends with the model that is best on its own validation cases, and tells no more than that."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from client.data.volume import SiteData
from client.evaluation import evaluate, summary
from client.own_choice import Choice, choice_folder, read_choice
from client.own_layers import initial
from client.training import Progress, channels_last
from client.work.midround import Midround
from common.nets import build_net
from common.own_choice import CANDIDATES
from common.study import Study
from common.wire import Schema
from server.checkpoint import Checkpoints
from server.events import read_events
from server.joining import join
from server.report.own import choices
from server.rounds import Run

OWN = {"finetune": 4, "rate": 0.01, "local": True}


def told(run: Run) -> dict[str, dict[str, Any]]:
    """What each site said in the final test."""
    events = read_events(run.folder / "events.jsonl")
    return {e["site"]: e for e in events if e["event"] == "evaluated" and e["part"] == "test"}


def net_of(study: Study, tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    net = channels_last(build_net(study))
    net.load_state_dict(tensors)
    return net


def home(toy: Any, site: str, out: str = "out") -> Path:
    found: Path = toy.folder / out / "sites" / site
    return found


@pytest.fixture
def two(toy: Any) -> Any:
    toy.add("a", 0)
    toy.add("b", 100)
    return toy


def test_the_best_on_validation_is_tested_and_kept(two, toy_study) -> None:
    """Validation and test of the chosen model are done once more by hand, from the file that the site keeps."""
    study = toy_study(strategy={"name": "ditto", "pull": 0.5}, evaluation={"own": OWN}, training={"steps": 8})
    run = two.run(study)
    taken = set()
    for site, e in told(run).items():
        scores = {name: e[f"own-validation-{name}"] for name in CANDIDATES}
        assert e["own-judged"] == 1
        chosen = CANDIDATES[int(e["own-chosen"])]
        taken.add(chosen)
        assert scores[chosen] == max(scores.values()) >= scores["global"]
        assert all(s < scores[chosen] for s in list(scores.values())[: CANDIDATES.index(chosen)])
        kept = read_choice(home(two, site), "run")
        if chosen == "global":
            assert kept is None
            assert e["own-dice"] == e["dice"]
            continue
        assert kept is not None
        assert kept[0] == chosen
        data, net = two.sites[site](study), net_of(study, kept[1])
        judged, tested = (evaluate(net, part, study, torch.device("cpu")) for part in (data.validation, data.test))
        assert summary(judged, study)["dice"] == scores[chosen]
        assert {k.removeprefix("own-"): e[k] for k in e if (k.startswith("own-") and "." in k) or k == "own-dice"} == {
            k: v for k, v in summary(tested, study).items() if k != "num-examples"
        }
        rows = json.loads((home(two, site) / "results/run" / f"round-{e['round']:05d}-test-own.json").read_text())
        assert rows[0]["dice"]["disc"] == e["own-dice"]
    assert taken - {"global"}, "the test must see a model of a site's own"
    assert [row["site"] for row in choices(read_events(run.folder / "events.jsonl"))] == ["a", "b"]


def test_candidates_are_what_they_are_called(two, toy_study, monkeypatch) -> None:
    """Local: bit for bit the site trained alone. Personalised: Ditto's of the tested round."""
    monkeypatch.setattr(Choice, "_keep", lambda *_: None)
    made = {}
    judge = Choice._judge

    def seen(self: Choice, state: dict[str, torch.Tensor]) -> Any:
        made.setdefault(self.site.config.name, []).append(state)
        return judge(self, state)

    monkeypatch.setattr(Choice, "_judge", seen)
    study = toy_study(strategy={"name": "ditto"}, evaluation={"own": OWN})
    run = two.run(study)
    alone = toy_study()
    flat = Checkpoints(two.run(alone, "alone", ["a"]).folder / "checkpoints", alone.digest(), Schema.of(alone))
    state = flat.state()
    assert state is not None
    local, average = Schema.of(alone).pack(made["a"][3]), flat.weights(state.round)
    assert all(local[k].tobytes() == average[k].tobytes() for k in average)
    (e,) = (e for s, e in told(run).items() if s == "a")
    kept = load_file(home(two, "a") / "state" / "run" / f"round-{e['round']:05d}.safetensors")
    assert all(torch.equal(v, kept[f"personal.net.{k}"]) for k, v in made["a"][2].items())
    best = Schema.of(study).pack(made["a"][0])
    assert all(best[k].tobytes() == v.tobytes() for k, v in run.best().items())
    assert not any(torch.equal(made["a"][0]["head.weight"], made["a"][i]["head.weight"]) for i in (1, 2, 3))


def test_what_is_trained_alone_has_nothing_frozen_at_random(two, toy_study, monkeypatch) -> None:
    """Frozen layers have the given weights in the global model; a model from random ones must learn them."""
    made = []
    judge = Choice._judge
    monkeypatch.setattr(Choice, "_judge", lambda self, state: (made.append(state), judge(self, state))[1])
    torch.manual_seed(9)
    given = build_net(toy_study()).state_dict()
    file = two.folder / "given.safetensors"
    save_file(given, file)
    study = toy_study(
        start={"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}, training={"freeze": ["down.*"]},
        rounds={"number": 1}, evaluation={"own": {"finetune": 0, "local": True}},
    )  # fmt: skip
    grid, _ = two.grid()
    members = list(join(grid, study).values())
    Run(grid, study, two.folder / "out" / "run", members, members, start=file).start()
    still = [name for name, _ in build_net(study).named_parameters() if name.startswith("down.")]
    for average, local in zip(made[::2], made[1::2], strict=True):
        assert all(torch.equal(average[name], given[name]) for name in still)
        assert not any(torch.equal(local[name], initial(study)[name]) for name in still if name.endswith("weight"))


def test_a_site_that_did_not_train_ends_with_the_global_model(two, toy_study) -> None:
    run = two.run(toy_study(evaluation={"own": OWN}), train=["a"])
    found = told(run)["b"]
    assert found["own-chosen"] == 0
    assert found["own-validation-finetuned"] == found["own-validation-local"] == 0
    assert found["own-validation-global"] > 0
    assert not choice_folder(home(two, "b"), "run").exists() or not list(choice_folder(home(two, "b"), "run").iterdir())


def test_a_site_for_testing_only_needs_no_cases_for_an_epoch(two, toy_study) -> None:
    parts = two.sites["b"](toy_study())
    two.sites["b"] = lambda study: SiteData((), parts.validation, parts.test)
    study = toy_study(evaluation={"own": OWN}, training={"steps": None, "epochs": 1})
    assert told(two.run(study, train=["a"]))["b"]["own-chosen"] == 0


class Interrupted(BaseException):
    """As the trainer is stopped."""


@pytest.mark.parametrize("after", [11, 18])
def test_a_choice_that_is_interrupted_ends_the_same(two, toy_study, monkeypatch, after: int) -> None:
    """Stopped while it fine-tunes, and while it trains alone with the fine-tuned model done."""
    monkeypatch.setattr("client.work.midround.EVERY", 0.0)
    monkeypatch.setattr("client.work.midround.SHARE", 1e9)
    study = toy_study(evaluation={"own": OWN})
    calm = two.run(study, "calm")
    grid, sites = two.grid("stopped")
    members = list(join(grid, study).values())
    steps, begun = iter(range(1, 100)), []

    def progress(stream: int, count: int) -> Progress:
        made = Midround(two.folder / "midround", f"{stream} {count} {len(begun) if len(begun) < 3 else 'choice'}")
        begun.append((count, made.done))
        return made

    def on_step() -> None:
        if next(steps) == after:
            raise Interrupted

    sites[0].progress, sites[0].on_step = progress, on_step

    def go() -> Run:
        made = Run(grid, study, two.folder / "stopped" / "run", members, members)
        made.start()
        return made

    with pytest.raises(Interrupted):
        go()
    before = len(begun)
    made = go()
    # Three rounds of three steps come first; then four of fine-tuning, and nine alone.
    assert begun[before:] == ([(4, 2), (9, 0)] if after == 11 else [(9, 5)])
    without = ("seconds", "time")
    assert [{k: v for k, v in told(r)["a"].items() if k not in without} for r in (made, calm)] == [
        {k: v for k, v in told(calm)["a"].items() if k not in without}
    ] * 2


def test_nothing_is_told_without_the_setting(two, toy_study) -> None:
    assert not any(k.startswith("own-") for k in told(two.run(toy_study()))["a"])
