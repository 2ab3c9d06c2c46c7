"""`fedscan simulate` of a study without rounds: the table of a given model at every site, and nothing beside it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import yaml

from common.bundle import write_bundle
from common.cli import run
from common.figures import Figures
from common.nets import build_net
from common.schema import Schema
from common.study import Study
from simulations.phantom import make_phantom

ROOT = Path(__file__).parents[2]
BASE: dict[str, Any] = {
    "name": "judged",
    "data": {"dimensions": 2, "labels": ["liver", "kidneys"]},
    "plan": {"size": [32, 32], "patch": [32, 32]},
    "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and two hospitals of six cases each."""
    made = tmp_path_factory.mktemp("judging")
    study = Study.model_validate(BASE | {"training": {"steps": 1}})
    torch.manual_seed(3)
    flat = Schema.of(study).pack(build_net(study).state_dict())
    write_bundle(made / "model", study, "elsewhere", flat, Figures(round=1, rounds=1, sites=1, cases=1))
    make_phantom(made / "scans", sites=2, cases=6, dimensions=2)
    return made


def written(folder: Path, name: str, /, **changes: Any) -> Path:
    sha256 = hashlib.sha256((folder / "model" / "weights.safetensors").read_bytes()).hexdigest()
    sites = {f.name: {"data": str(f), "device": "cpu"} for f in sorted((folder / "scans").iterdir()) if f.is_dir()}
    study = BASE | {
        "start": {"file": "model", "sha256": sha256},
        "rounds": {"number": 0},
        "evaluation": {"validation": 0, "test": 1, "metrics": ["dice"]},
        "sites": sites,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study | changes))
    return path


def test_the_table_of_one_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "inline"
    path = written(folder, "judged")
    assert run(["simulate", str(path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    (made,) = out.glob("judged-*-1")
    results = json.loads((made / "results.json").read_text())
    assert [m["key"] for m in results["methods"]] == ["given"]
    assert [p.name for p in (made / "seed-1" / "runs").iterdir()] == ["given"]
    assert results["failures"] == []
    assert [(s["train"], s["validation"], s["test"]) for s in results["sites"]] == [(0, 0, 6)] * 2
    assert len(results["cases"]) == 12
    page, summary = (made / "report.html").read_text(), json.loads((made / "summary.json").read_text())
    # By hand: each case's mean over its labels, each site's over its cases, then over the sites.
    sites = {s["name"]: [c for c in results["cases"] if c["site"] == s["name"]] for s in results["sites"]}
    per_case = {n: [[d for d in c["dice"].values() if d is not None] for c in rows] for n, rows in sites.items()}
    means = {n: fmean(fmean(d) for d in rows if d) for n, rows in per_case.items()}
    assert f"its mean Dice on test scans is {fmean(means.values()):.3f}" in summary["sentences"][0]
    assert summary["headline"] in page
    assert summary["headline"] in " ".join(printed.split())
    for mean in means.values():
        assert f"{mean:.3f}" in printed
    for absent in ("Was federation worth it", "★", "training site", "Training loss", "Local only", "Not judged"):
        assert absent not in page, absent
    assert "training" not in printed
    # Once it is finished, it is finished.
    assert run(["simulate", str(path), "--out", str(out), "--resume"]) == 0


@pytest.mark.full  # one comparison of the engines is in the plain set: test_ray.py
@pytest.mark.ray
def test_ray_gives_the_same_table(folder: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "fedscan[ray]"')
    cases = {}
    for engine in ("inline", "ray"):
        out = folder / f"engine-{engine}"
        command = ["simulate", str(written(folder, "engines")), "--out", str(out), "--engine", engine]
        asked = [sys.executable, "-c", "from common.cli import main; main()", *command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(asked, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (made,) = out.glob("judged-*-1")
        cases[engine] = json.loads((made / "results.json").read_text())["cases"]
    assert cases["ray"] == cases["inline"] != []


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"compare": ["fedavg"]}, (), "compare: rounds.number is 0, so nothing is trained or compared"),
        ({}, ("--seeds", "2"), "--seeds: the study trains nothing"),
        ({"start": {"file": "nowhere", "sha256": "0" * 64}}, (), "nowhere: cannot be read"),
        ({}, ("--resume",), "To begin one: the same command without --resume"),
    ],
    ids=["compare", "seeds", "file", "resume"],
)
def test_what_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], options: tuple[str, ...], says: str
) -> None:
    path = written(folder, "refused", name="refused", **changes)
    assert run(["simulate", str(path), "--out", str(folder / "refused"), *options]) != 0
    assert says in " ".join(capsys.readouterr().err.split())
