"""Every net of the registry learns a phantom by heart, and every net federates: through the real app, grid and rounds.

The mean of the sites' updates is computed here from the updates themselves, with the formula of the weighted mean in
float64; pooled variances by the law of total variance, E[σ² + μ²] − E[μ]², which the product does not use.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from client.data import preprocess
from client.data.cache import store
from client.data.volume import CachedCase, SiteData
from common import wire
from common.nets import build_net
from common.study import Study
from common.wire import Flat, Schema, running_statistics
from server.checkpoint import Checkpoints
from server.events import read_events
from simulations.benchmarks.learning import CASES, TARGET, learn, matrix, phantoms, study

# Of the cheap ones: a 2D net with batch normalisation, and a 3D net.
CHEAP = [("attention_unet", 2), ("residual_unet", 3)]
EVERY = [
    pytest.param(*one, id="-".join(map(str, one)), marks=() if one in CHEAP else pytest.mark.full) for one in matrix()
]
SITES = {"a": 1, "b": 2, "c": 4}  # training cases


def test_the_cheap_ones_are_one_with_running_statistics_and_one_in_3d() -> None:
    assert set(CHEAP) <= set(matrix())
    assert running_statistics(build_net(study(*CHEAP[0])))
    assert [dimensions for _, dimensions in CHEAP] == [2, 3]


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_it_learns_a_phantom_by_heart(name, dimensions) -> None:
    learnt = learn(name, dimensions)
    assert learnt.dice >= TARGET, learnt


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_two_rounds_of_three_sites_give_the_weighted_mean(toy, monkeypatch, name, dimensions) -> None:
    task = federation(name, dimensions)
    place_sites(toy, task)
    sent = updates(monkeypatch)
    run = toy.run(task)

    state = Checkpoints(run.folder / "checkpoints", task.digest(), Schema.of(task))
    folded = [e["sites"] for e in read_events(run.folder / "events.jsonl") if e["event"] == "folded"]
    assert folded == [list(SITES)] * 2
    assert len(sent) == 2 * len(SITES)
    last, shares = sent[-len(SITES) :], np.array(list(SITES.values())) / sum(SITES.values())
    schema, found = Schema.of(task), state.weights(2)
    assert found.keys() == schema.sizes.keys()
    pooled = {variance.name: (mean, variance) for mean, variance in schema.statistics()}
    for entry in schema.entries:
        values = [site[entry.dtype][entry.place] for site in last]
        result = found[entry.dtype][entry.place]
        assert np.isfinite(result).all(), entry.name
        if entry.dtype == "int64":
            np.testing.assert_array_equal(result, np.max(values, axis=0), err_msg=entry.name)
        elif entry.name in pooled:
            means = [site[entry.dtype][pooled[entry.name][0].place].astype("float64") for site in last]
            np.testing.assert_allclose(result, total_variance(values, means, shares), rtol=1e-6, err_msg=entry.name)
        else:
            mean = sum(share * value.astype("float64") for share, value in zip(shares, values, strict=True))
            np.testing.assert_array_equal(result, np.asarray(mean, "float32"), err_msg=entry.name)
    assert any(not np.array_equal(last[0]["float32"], other["float32"]) for other in last[1:]), "sites must differ"


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_local_statistics_stay_where_they_are(toy, monkeypatch, name, dimensions) -> None:
    task = federation(name, dimensions, buffers="local")
    kept = running_statistics(build_net(task))
    if not kept:
        # Then the policy changes nothing that crosses.
        assert Schema.of(task) == Schema.of(federation(name, dimensions))
        return
    place_sites(toy, task)
    sent = updates(monkeypatch)
    toy.run(task)
    whole, part = Schema.of(federation(name, dimensions)), Schema.of(task)
    assert {e.name for e in whole.entries} - {e.name for e in part.entries} == kept
    assert all({k: v.size for k, v in flat.items()} == part.sizes for flat in sent)
    states = [load_file(f) for s in SITES for f in (toy.folder / "out" / "sites" / s / "state").rglob("*2.safetensors")]
    assert len(states) == len(SITES)
    own = [{k.removeprefix("own."): v for k, v in s.items() if k.startswith("own.")} for s in states]
    assert all(set(buffers) == kept for buffers in own)
    means = [name for name in kept if name.endswith("running_mean")]
    assert any(not torch.equal(own[0][name], own[1][name]) for name in means), "each site has seen other scans"


def federation(name: str, dimensions, **rounds) -> Study:
    """Two rounds of a step each; nothing is kept for validation."""
    training = {"rate": 1e-3, "steps": 1, "batch": CASES, "precision": "fp32"}
    return study(name, dimensions, training=training, rounds={"number": 2, **rounds})


def place_sites(toy, task: Study) -> None:
    """Phantom hospitals, each with other patients, a grey value curve of its own, and another number of cases."""
    for number, (site, cases) in enumerate(SITES.items()):
        made = tuple(
            case(toy.folder / "cases" / site, f"{site}-{i}", image.numpy(), label.numpy().astype("uint8"))
            for i, (image, label) in enumerate(phantoms(task, cases, number))
        )
        data = SiteData(made, (), ())
        toy.sites[site] = lambda study, data=data: data


def case(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> CachedCase:
    grid = preprocess.grid(label.shape, np.eye(4))
    voxels = [int((label == value).sum()) for value in (1, 2)]
    foreground = np.column_stack([np.argwhere(label), label[label > 0]]).astype("int32")
    arrays = {"image": image, "label": label, "truth": label, "foreground": foreground}
    grids, counts = {"own": grid, "plan": grid}, {"voxels": voxels, "plan_voxels": voxels}
    store(
        folder / name,
        arrays,
        {"image": name, "content": name, **grids, **counts, "unlabelled": [], "notes": [], "gate": {}},
    )
    return CachedCase(name, name, folder / name, name.ljust(64, "0"), name)


def updates(monkeypatch: pytest.MonkeyPatch) -> list[Flat]:
    """Filled with what each site sends, in the order of sending."""
    sent: list[Flat] = []
    reply = wire.train_reply

    def heard(message, flat, metrics):
        sent.append({dtype: values.copy() for dtype, values in flat.items()})
        return reply(message, flat, metrics)

    monkeypatch.setattr(wire, "train_reply", heard)
    return sent


def total_variance(variances: list[np.ndarray], means: list[np.ndarray], shares: np.ndarray) -> np.ndarray:
    squares = sum(s * (v.astype("float64") + m**2) for s, v, m in zip(shares, variances, means, strict=True))
    return squares - sum(s * m for s, m in zip(shares, means, strict=True)) ** 2
