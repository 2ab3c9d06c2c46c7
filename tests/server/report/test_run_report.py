"""The report of one run between real sites, from events and a checkpoint as the rounds write them."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from common.errors import StudyError
from common.metrics import score_limits
from common.nets import build_net
from common.study import Study
from common.wire import Schema
from server.checkpoint import Checkpoints, State
from server.events import Events
from server.report.run import write_run_report
from server.service.delivery import Delivered, Delivery, write_delivery

STUDY = Study.model_validate(
    {"name": "s", "description": "<b>&", "data": {"labels": ["a", "b"], "dimensions": 2}, "plan": {"patch": [16, 16]},
     "training": {"steps": 2}, "net": {"name": "unet", "width": 2, "levels": 2}, "rounds": {"number": 3}}
)  # fmt: skip
SCHEMA = Schema.of(STUDY)
DICE = {("oslo", 1): 0.2, ("rome", 1): 0.4, ("oslo", 2): 0.6, ("rome", 2): 0.8}


def score(dice: float, cases: int = 2) -> dict[str, Any]:
    """Label b is in no case; an HD95 of a is there, of Dice the quartiles too."""
    keys = score_limits(STUDY.metrics(), ("a", "b"), "quartiles")
    spread = {f"dice.a.{q}": dice + d for q, d in (("q25", -0.1), ("median", 0.01), ("q75", 0.1))}
    return {**dict.fromkeys(keys, 0.0), "num-examples": cases, "dice": dice, "dice.a": dice, "cases.a": cases, **spread,
            "hd95.a": 20 * dice, "hd95.a.median": 3.21, "hd95.a.told": 1.0, "seconds": 0.5}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two of three rounds, the second the better one; rome missed the first."""
    folder = tmp_path / "run-1"
    folder.mkdir()
    events = Events(folder / "events.jsonl")
    for site in ("oslo", "rome"):
        events.append("joined", round=0, site=site, train=4, validation=2, test=1, patients=7, steps=2)
    events.append("started", digest=STUDY.digest(), sites=["oslo", "rome"], rounds=3, bytes=SCHEMA.nbytes)
    for number in (1, 2):
        for site in ("oslo", "rome"):
            if (site, number) == ("rome", 1):
                events.append("failed", round=1, site=site, why="E_DATA")
                continue
            facts = {"num-examples": 4, "steps": 2, "loss": 1.0 / number, "seconds": 1.5}
            events.append("trained", round=number, site=site, bytes=SCHEMA.nbytes, **facts)
        for site in ("oslo", "rome"):
            events.append("evaluated", round=number, part="validation", site=site, **score(DICE[site, number]))
        events.append("checkpoint", round=number, best_round=number)
    events.append("evaluated", round=2, part="test", site="oslo", **score(0.5, 1))
    torch.manual_seed(3)
    flat = SCHEMA.pack(build_net(STUDY).state_dict())
    state = State(STUDY.digest(), round=2, best_round=2, best_metric=0.7, seconds=12.5)
    Checkpoints(folder / "checkpoints", STUDY.digest(), SCHEMA).write(state, flat)
    return folder


def test_the_model_is_the_best_rounds_net(folder: Path) -> None:
    write_run_report(folder, STUDY, "running")
    torch.manual_seed(3)
    net = build_net(STUDY)
    weights = load_file(folder / "model" / "weights.safetensors")
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())
    net.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    card = json.loads((folder / "model" / "card.json").read_text())
    assert (card["digest"], card["figures"]["round"]) == (STUDY.digest(), 2)
    assert [label["name"] for label in card["labels"]] == ["background", "a", "b"]
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert not card["finished"]
    found = json.loads((folder / "report.json").read_text())["model"]
    assert (found["hash"], found["round"], found["metric"]["value"]) == (card["model"], 2, 0.7)


def test_the_figures_are_means_over_sites_and_name_none(folder: Path) -> None:
    write_run_report(folder, STUDY, "running")
    found = json.loads((folder / "model" / "card.json").read_text())["figures"]
    assert found["validation"] == {
        "sites": 2,
        "cases": 4,
        "dice": pytest.approx(0.7),
        "labels": [pytest.approx(0.7), None],
    }
    # One hospital alone was tested: its own score would be no mean.
    assert found["test"] is None
    assert found["curve"] == [{"round": 1, "dice": pytest.approx(0.3)}, {"round": 2, "dice": pytest.approx(0.7)}]
    assert (found["rounds"], found["sites"], found["cases"]) == (2, 2, 8)
    for name in ("card.json", "weights.safetensors"):
        raw = (folder / "model" / name).read_bytes()
        assert b"oslo" not in raw
        assert b"rome" not in raw


def test_the_numbers_are_those_of_the_events(folder: Path) -> None:
    files = write_run_report(folder, STUDY, "failed", "1 of 2 sites")
    assert all((folder / name).is_file() for name in files)
    found = json.loads((folder / "report.json").read_text())
    size = SCHEMA.nbytes
    oslo, rome = found["sites"]
    assert (oslo["rounds"], oslo["failures"], rome["rounds"], rome["failures"]) == (2, 0, 1, 1)
    # oslo: two updates up; two trainings, two validations and a test down.
    assert (oslo["bytes_up"], oslo["bytes_down"]) == (2 * size, 5 * size)
    assert oslo["seconds"] == pytest.approx(2 * 1.5 + 3 * 0.5)
    assert found["cost"]["bytes_up"] == 3 * size
    assert found["cost"]["seconds"] == 12.5
    assert found["cost"]["validation"] == pytest.approx((0.6 + 0.8) / 2)
    assert oslo["validation"]["dice"] == 0.6
    assert oslo["validation"]["labels"] == {"a": 0.6, "b": None}
    assert oslo["test"]["metrics"] == {
        "dice": {"a": {"mean": 0.5, "q25": 0.4, "median": 0.51, "q75": 0.6}, "b": None},
        "hd95": {"a": {"mean": 10.0, "q25": 0.0, "median": 3.21, "q75": 0.0}, "b": None},
    }
    assert rome["test"] is None
    assert found["test"] == 0.5
    assert [(f["round"], f["site"], f["why"]) for f in found["failures"]] == [(1, "rome", "E_DATA")]
    with (folder / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["round"], r["part"], r["site"]) for r in rows[:3]] == [
        ("1", "train", "oslo"), ("1", "validation", "oslo"), ("1", "validation", "rome")
    ]  # fmt: skip
    assert len(rows) == 3 + 4 + 1
    assert (rows[-1]["hd95.a"], rows[-1]["dice.a.median"]) == ("10.0", "0.51")


def test_the_page_holds_everything_and_fetches_nothing(folder: Path) -> None:
    write_run_report(folder, STUDY, "failed", "1 of 2 <sites>")
    page = (folder / "report.html").read_text()
    for part in (
        "2 of 3 rounds",
        "1 of 2 &lt;sites&gt;",
        "&lt;b&gt;&amp;",
        "0.700",
        STUDY.digest(),
        "E_DATA",
        "<svg",
        "HD95, mm",
        "3.21",
    ):
        assert part in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_a_run_without_a_round_has_no_report(tmp_path: Path) -> None:
    (tmp_path / "run-1").mkdir()
    with pytest.raises(StudyError, match="fedscan run watch run-1"):
        write_run_report(tmp_path / "run-1", STUDY, "running")


def test_the_page_says_where_the_model_is(folder: Path) -> None:
    here = Delivered(time=datetime(2030, 1, 2, 3, 4, tzinfo=UTC))
    sites = {"oslo": here, "rome": Delivered(why="E_STORAGE")}
    write_delivery(folder, Delivery(model="0" * 64, sites=sites))
    write_run_report(folder, STUDY, "finished")
    page = " ".join((folder / "report.html").read_text().split())
    assert "The final model is at oslo (2030-01-02 03:04 UTC); not yet at rome (E_STORAGE)." in page
    found = json.loads((folder / "report.json").read_text())["delivery"]
    assert found == {"there": {"oslo": "2030-01-02 03:04"}, "due": {"rome": "E_STORAGE"}}
