"""A toy federation: sites of small 2D cases that learn in seconds, through the real grid, app and rounds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.app import make_app
from client.data import preprocess
from client.data.cache import store
from client.data.volume import CachedCase, SiteData
from client.open_site import OpenSite, Workplace
from client.site import SiteConfig
from common.study import Study
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid


def make_case(folder: Path, name: str, seed: int) -> CachedCase:
    """A bright disc on noise, 16 x 16 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    label = ((y - rng.integers(5, 11)) ** 2 + (x - rng.integers(5, 11)) ** 2 < 14).astype("uint8")
    image = (label + 0.4 * rng.normal(size=label.shape)).astype("float32")[None]
    grid = preprocess.grid((16, 16), np.eye(4))
    voxels = [int(label.sum())]
    foreground = np.column_stack([np.argwhere(label), label[label > 0]]).astype("int32")
    arrays = {"image": image, "label": label, "truth": label, "foreground": foreground}
    case = folder / name
    grids, counts = {"own": grid, "plan": grid}, {"voxels": voxels, "plan_voxels": voxels}
    store(case, arrays, {"image": name, "content": name, **grids, **counts, "unlabelled": [], "notes": [], "gate": {}})
    return CachedCase(name, name, case, f"{seed:064d}", name)


def toy_study(**changes: Any) -> Study:
    base: dict[str, Any] = {
        "name": "toy",
        "data": {"labels": ["disc"], "dimensions": 2},
        "plan": {"patch": [16, 16]},
        "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
        "training": {"steps": 3, "rate": 0.01, "batch": 2},
        "rounds": {"number": 3},
    }
    for key, value in changes.items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) and key != "strategy" else value
    return Study.model_validate(base)


class Toy:
    """Sites by name, each with its cases; `run` runs a study over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sites: dict[str, Callable[[Study], SiteData]] = {}

    def add(self, name: str, first_seed: int, cases: int = 4) -> None:
        root = self.folder / "cases" / name
        made = [make_case(root, f"{name}-{i}", first_seed + i) for i in range(cases + 2)]
        data = SiteData(tuple(made[:cases]), tuple(made[cases : cases + 1]), tuple(made[cases + 1 :]))
        self.sites[name] = lambda study: data

    def grid(self, out: str = "out") -> tuple[InlineGrid, list[OpenSite]]:
        """The real grid over all sites, each at home under `out`."""
        place = Workplace(torch.device("cpu"))
        sites = [
            OpenSite(SiteConfig(name=n, data=Path()), self.folder / out / "sites" / n, load, place)
            for n, load in self.sites.items()
        ]
        return InlineGrid(make_app(lambda c: sites[int(c.node_config["partition-id"])]), len(sites)), sites

    def run(self, study: Study, out: str = "out", train: list[str] | None = None) -> Run:
        grid, _ = self.grid(out)
        members = join(grid, study)
        roster = [members[n] for n in train or members]
        run = Run(grid, study, self.folder / out / "run", roster, list(members.values()))
        run.start()
        return run


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture(name="toy_study")
def _toy_study() -> Callable[..., Study]:
    return toy_study
