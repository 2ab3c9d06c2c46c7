"""A run that begins with a file: round 1 is trained from its very bits, and what was begun needs the file no more."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.site import SiteConfig
from common.bundle import read_bundle
from common.errors import ModelError, StudyError
from common.schema import Schema
from common.section import Choice
from common.start import start_file
from common.study import Study
from server.checkpoint import Checkpoints
from server.joining import join
from server.rounds import Run
from simulations.phantom import make_phantom
from simulations.run import Watcher, simulate
from simulations.simulation import Simulation
from simulations.sites import Field
from simulations.sweep import _with_start
from simulations.trial import FIELD, SEEDS, STUDY, seeded


def start_of(file: Path, **more: Any) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), **more}


@pytest.fixture
def two(toy: Any) -> Any:
    toy.add("a", 0)
    toy.add("b", 100)
    return toy


def run_of(toy: Any, study: Study, start: Path | None, out: str) -> Run:
    grid, _ = toy.grid(out)
    members = list(join(grid, study).values())
    return Run(grid, study, toy.folder / out / "run", members, members, start=start)


def test_the_end_of_one_run_is_the_beginning_of_the_next(two, toy_study) -> None:
    """Bit for bit: what the model's file holds is what the first round's task carries."""
    first = two.run(toy_study(rounds={"number": 2}), "first")
    file = first.folder / "model" / "weights.safetensors"
    study = toy_study(rounds={"number": 2}, start=start_of(file))
    second = run_of(two, study, file, "second")
    seen = []
    second._checkpoints.write = _spy(second._checkpoints.write, seen)  # type: ignore[method-assign]
    second.start()
    begun = seen[0]
    ended = read_bundle(first.folder / "model").flat()
    assert begun.keys() == ended.keys()
    assert all(begun[k].tobytes() == ended[k].tobytes() for k in ended)
    assert any(second.best()[k].tobytes() != ended[k].tobytes() for k in ended)


def _spy(write: Any, seen: list[Any]) -> Any:
    def told(state: Any, flat: Any = None, memory: Any = None) -> None:
        if flat is not None:
            seen.append({k: np.array(v) for k, v in flat.items()})
        write(state, flat, memory)

    return told


def test_a_run_that_began_needs_the_file_no_more(two, toy_study, monkeypatch) -> None:
    file = two.run(toy_study(), "first").folder / "model" / "weights.safetensors"
    study = toy_study(start=start_of(file))
    calm = run_of(two, study, file, "calm")
    calm.start()

    broken = run_of(two, study, file, "broken")
    monkeypatch.setattr(Run, "_round", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        broken.start()
    monkeypatch.undo()
    file.unlink()
    again = run_of(two, study, None, "broken")
    again.start()
    assert all(again.best()[k].tobytes() == v.tobytes() for k, v in calm.best().items())
    # One that did not begin cannot begin without it.
    with pytest.raises(StudyError, match="was not given"):
        run_of(two, study, None, "none").start()
    with pytest.raises(ModelError, match="cannot be read"):
        run_of(two, study, file, "gone").start()
    assert not (two.folder / "gone" / "run" / "checkpoints" / "state.json").exists()


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[SiteConfig]:
    folders = make_phantom(tmp_path_factory.mktemp("scans"), sites=2, cases=6, dimensions=2)
    return [SiteConfig(name=f.name, data=f, device="cpu") for f in folders]


def phantom_study(**changes: Any) -> Study:
    base: dict[str, Any] = {
        "name": "start",
        "data": {"dimensions": 2, "labels": ["liver", "kidneys"]},
        "plan": {"size": [32, 32], "patch": [32, 32]},
        "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
        "training": {"steps": 2, "batch": 2, "rate": 0.01},
        "rounds": {"number": 1},
        "evaluation": {"validation": 0.2, "test": 0.3, "metrics": ["dice"]},
    }
    return Study.model_validate(base | changes)


def test_every_arm_of_a_simulation_begins_with_the_file(phantoms: list[SiteConfig], tmp_path: Path) -> None:
    made = Simulation(phantom_study(), tuple(phantoms), (Choice(name="fedavg"),), tmp_path / "a", tmp_path / "cache")
    simulate(made, Watcher())
    file = tmp_path / "a" / "seed-1" / "runs" / "fedavg" / "model" / "weights.safetensors"
    # At a rate of almost nothing the weights at the end are those of the beginning.
    still = {"steps": 2, "batch": 2, "rate": 1e-12, "weight_decay": 0, "warmup": 0}
    study = phantom_study(start=start_of(file), training=still)
    again = replace(made, study=study, out=tmp_path / "b", start=file)
    simulate(again, Watcher())
    wanted = read_bundle(file).flat()["float32"]
    runs = sorted(p.name for p in (tmp_path / "b" / "seed-1" / "runs").iterdir())
    assert runs == ["fedavg", *(f"local-{c.name}" for c in phantoms), "pooled_kt", "pooled_t"]
    arms = {a.run: a for a in again.arms(study, [c.name for c in phantoms])}
    for run in runs:
        schema = Schema.of(arms[run].study)
        parameters = [s for s in schema.places("parameter")]
        folder = tmp_path / "b" / "seed-1" / "runs" / run / "checkpoints"
        state = Checkpoints(folder, arms[run].study.digest(), schema).state()
        assert state is not None
        flat = Checkpoints(folder, arms[run].study.digest(), schema).weights(state.round)["float32"]
        for place in parameters:
            np.testing.assert_allclose(flat[place], wanted[place], atol=1e-9, rtol=0)
    # The file is held against every net before any work is done; once all have begun it is not wanted any more.
    file.rename(tmp_path / "moved")
    simulate(again, Watcher())
    with pytest.raises(ModelError, match="cannot be read"):
        simulate(replace(again, out=tmp_path / "c"), Watcher())
    assert not (tmp_path / "c" / "seed-1").exists()


def test_a_trial_of_a_sweep_finds_the_file(tmp_path: Path, phantoms: list[SiteConfig]) -> None:
    """Its process knows the study from a file of its own, which lies elsewhere than the study file."""
    study = phantom_study(start={"sha256": "0" * 64, "file": "model.safetensors"})
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / STUDY).write_text(_with_start(study, tmp_path / "beside" / "model.safetensors"))
    (tmp_path / SEEDS).write_text("[1, 2]")
    Field(tuple(phantoms), tmp_path / "cache", tmp_path).write(tmp_path / FIELD)
    for found, _, _ in seeded(tmp_path / "trial"):
        assert start_file(found, tmp_path / "trial") == tmp_path / "beside" / "model.safetensors"
        assert found.model_copy(update={"seed": 1}).digest() == study.digest()
