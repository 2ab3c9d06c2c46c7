"""Each site left out of the training in turn, and the model tested there."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.cli import run
from server.events import read_events

STUDY: dict[str, Any] = {
    "name": "left",
    "data": {"dimensions": 2, "labels": ["liver", "kidneys"]},
    "plan": {"size": [32, 32], "patch": [32, 32]},
    "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
    "training": {"steps": 1, "batch": 2, "rate": 0.01},
    "rounds": {"number": 1},
    "evaluation": {"validation": 0.2, "test": 0.3, "metrics": ["hd95", "assd"]},
    "sites": {"make": "phantom", "number": 3, "cases": 6},
    "compare": ["fedavg", "leave_one_out"],
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left")
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    assert run(["simulate", str(study), "--out", str(folder / "out")]) == 0
    (made,) = (folder / "out").glob("left-*-1")
    return made


def test_the_others_train_and_the_site_is_tested(simulated: Path) -> None:
    results = json.loads((simulated / "results.json").read_text())
    sites = [s["name"] for s in results["sites"]]
    for site in sites:
        events = read_events(simulated / "seed-1" / "runs" / f"leave_one_out-{site}" / "events.jsonl")
        assert {e["site"] for e in events if e["event"] == "trained"} == set(sites) - {site}
        assert {e["site"] for e in events if e["event"] == "evaluated" and e["part"] == "test"} == {site}
    rows = [c for c in results["cases"] if c["method"] == "leave_one_out"]
    federated = [c for c in results["cases"] if c["method"] == "fedavg"]
    assert [(c["site"], c["case"]) for c in rows] == [(c["site"], c["case"]) for c in federated]
    assert results["failures"] == []
    cost = [c for c in results["costs"] if c["method"] == "leave_one_out"]
    assert len(cost) == 3
    assert all(c["bytes_up"] == 2 * results["study"]["net"]["bytes_fp32"] for c in cost)
    assert {r["method"] for r in results["curves"]} == {"fedavg", "local", "pooled_t", "pooled_kt"}


def test_every_metric_of_every_case_is_kept_and_shown(simulated: Path) -> None:
    results = json.loads((simulated / "results.json").read_text())
    assert [(m["name"], m["unit"]) for m in results["metrics"]] == [("dice", ""), ("hd95", "px"), ("assd", "px")]
    for row in results["cases"]:
        for label, dice in row["dice"].items():
            assert (row["hd95"][label] is None) == (row["assd"][label] is None) == (dice is None)
            if dice is not None:
                assert row["hd95"][label] >= row["assd"][label] >= 0
    page = (simulated / "report.html").read_text(encoding="utf-8")
    assert "Trained without a site, each in turn, and tested there, FedAvg reached" in page
    assert "FedAvg, the site left out" in page
    assert "ASSD, px" in page
