"""Sites at fault, in closed form and through the real rounds, and the benchmark of dials over a few tiny cells."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.schema import Flat, Schema
from simulations.benchmarks.dials import TURNS, Cell, Size, Turn, matrix, run_all, study
from simulations.benchmarks.dials_page import PICTURE, TABLE, figures, page_text, write_page
from simulations.benchmarks.faults import Fault, poisoned

TINY = Size(sites=3, cases=5, rounds=2, steps=1)
Made = tuple[Path, dict[str, dict[str, Any]]]
TURN = {turn.key: turn for turn in TURNS}


def flats(schema: Schema) -> tuple[Flat, Flat]:
    """What a site receives and what an honest one sends, at random."""
    rng = np.random.default_rng(0)
    made = [
        {d: rng.normal(size=n).astype(d) if d == "float32" else np.full(n, 7) for d, n in schema.sizes.items()}
        for _ in "ab"
    ]
    return made[0], made[1]


@pytest.mark.parametrize("factor", [-1.0, -10.0, 10.0, 100.0])
def test_poison_multiplies_the_update_and_leaves_statistics_alone(factor: float) -> None:
    schema = Schema.of(study(Cell("scaffold", TURNS[0], 1), TINY))
    assert {e.kind for e in schema.entries} == {"parameter", "buffer", "control"}
    base, sent = flats(schema)
    before = {d: v.copy() for d, v in sent.items()}
    lie = poisoned(schema, base, sent, factor)
    for e in schema.entries:
        got, old, honest = (flat[e.dtype][e.place].astype(np.float64) for flat in (lie, base, sent))
        expected = {"parameter": old + factor * (honest - old), "control": factor * honest, "buffer": honest}[e.kind]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    assert all(np.array_equal(before[d], sent[d]) for d in sent)


def test_nan_makes_every_parameter_nan() -> None:
    schema = Schema.of(study(Cell("fedavg", TURNS[0], 1), TINY))
    lie = poisoned(schema, *flats(schema), math.nan)
    for e in schema.entries:
        assert np.isnan(lie[e.dtype][e.place]).all() == (e.kind == "parameter")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Results of FedAvg and the median with a few turns, by cell."""
    turns = ["no_dial-–", "away-half", "away-always", "poison-x_minus10", "poison-NaN", "wrong_labels-1"]
    cells = [Cell(name, TURN[turn], 1) for turn in turns for name in ("fedavg", "median")]
    out = tmp_path_factory.mktemp("dials")
    results = run_all(cells, out, jobs=1, size=TINY)
    return out, {cell.key: result for cell, result in zip(cells, results, strict=True)}


def test_a_site_that_is_away_is_not_folded(tiny: Made) -> None:
    results = tiny[1]
    folded = {turn: results[f"fedavg-{turn}-1"]["folded"] for turn in ("no_dial-–", "away-half", "away-always")}
    assert folded == {"no_dial-–": 6, "away-half": 5, "away-always": 4}
    assert set(results["fedavg-away-always-1"]["sites"]) == {"hospital-1", "hospital-2"}


@pytest.mark.parametrize("strategy", ["fedavg", "median"])
def test_nan_is_refused_on_arrival_and_the_model_is_the_others(tiny: Made, strategy: str) -> None:
    refused = tiny[1][f"{strategy}-poison-NaN-1"]
    assert refused["failures"] == {"hospital-3": "array float32 holds NaN or infinite values"}
    assert refused["folded"] == 4
    # The same model to the last bit, so the same Dice, as if the site had stayed away.
    assert refused["sites"] == tiny[1][f"{strategy}-away-always-1"]["sites"]


def test_poison_is_folded_and_moves_the_model(tiny: Made) -> None:
    honest, lie = (tiny[1][f"fedavg-{turn}-1"] for turn in ("no_dial-–", "poison-x_minus10"))
    assert lie["folded"] == honest["folded"] == 6
    assert lie["failures"] == honest["failures"] == {}
    assert lie["sites"] != honest["sites"]


def test_what_is_there_is_not_made_again(tiny: Made) -> None:
    out, results = tiny
    cell = Cell("fedavg", TURN["away-half"], 1)
    path = out / "cells" / f"{cell.key}.json"
    path.write_text(json.dumps(results[cell.key] | {"best_round": 77}))
    (again,) = run_all([cell], out, jobs=1, size=TINY)
    assert again["best_round"] == 77
    assert not any((out / "work").iterdir())


def test_page_and_picture(tiny: Made, tmp_path: Path) -> None:
    write_page(list(tiny[1].values()), tmp_path)
    text = (tmp_path / TABLE).read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["fedavg", "median"]
    dice = list(tiny[1]["median-no_dial-–-1"]["sites"].values())
    assert f"| `median` | **{sum(dice) / 2:.2f}** {min(dice):.2f} |" in text
    with Image.open(tmp_path / PICTURE) as picture:
        assert picture.width > picture.height > 100


def test_seeds_are_averaged_and_a_run_that_stops_says_so() -> None:
    row = {"strategy": "fedavg", "dial": "poison", "strength": "× 10", "stopped": None}
    one, two = ({**row, "seed": s, "sites": {"a": a, "b": 1.0}} for s, a in ((1, 0.5), (2, 0.25)))
    assert figures([one, two]) == {("fedavg", "poison", "× 10"): (0.6875, 0.375)}
    assert "| `fedavg` | stops |" in page_text([one, {**two, "stopped": "why", "sites": {}}])


def test_every_column_has_every_strategy_once() -> None:
    cells = list(matrix(["fedavg", "median"], ["no dial", "poison"], seeds=2))
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 2 * (1 + sum(t.dial == "poison" for t in TURNS))
    assert {turn.fault for turn in TURNS if turn.dial != "poison"} >= {Fault(), Fault(away=1)}
    assert isinstance(cells[0].turn, Turn)
