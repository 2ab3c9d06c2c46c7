"""A study so small that a federation of real processes ends it in seconds, and what it ends with in one process."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from client.app import make_app
from client.site import SiteConfig
from common.study import Study
from server.events import Event, read_events
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid
from simulations.phantom import make_phantom
from simulations.sites import Field
from tests.e2e.deployment import Deployment

# Optimiser and running statistics stay at the site: a step too many or too few shows in every later weight.
STUDY: dict[str, Any] = {
    "name": "toy",
    "data": {"dimensions": 2, "labels": ["liver", "kidneys"]},
    "plan": {"size": [32, 32], "patch": [32, 32]},
    "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
    "training": {"steps": 3, "batch": 2, "rate": 0.01, "optimizer_state": "keep"},
    "rounds": {"number": 3, "buffers": "local"},
    "evaluation": {"validation": 0.2, "test": 0.3},
}


def hospitals(folder: Path, number: int, cases: int = 6) -> dict[str, Path]:
    """Folders with pictures, by the names of their sites."""
    folders = make_phantom(folder, sites=number, cases=cases, dimensions=2)
    return {f"site-{i + 1:02d}": path for i, path in enumerate(folders)}


Outcome = dict[str, Any]


def outcome_of(folder: Path) -> Outcome:
    """What the run in `folder` ended with: its state, its weights, all that counted. Nothing that a clock tells."""
    state = json.loads((folder / "checkpoints" / "state.json").read_text())
    assert state["finished"]
    weights = {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("checkpoints/*.safetensors"))}
    assert weights
    return {
        # Where replies are signed they have salted hashes, which a simulation has not.
        "state": {k: v for k, v in state.items() if k not in ("seconds", "replies")},
        "weights": weights,
        "told": sorted(map(_fact, filter(_counts, read_events(folder / "events.jsonl")))),
    }


def _counts(event: Event) -> bool:
    return event["event"] in ("trained", "folded", "evaluated", "checkpoint")


def _fact(event: Event) -> str:
    """An event without what depends on the clock."""
    return json.dumps({k: v for k, v in event.items() if k not in ("time", "seconds")}, sort_keys=True)


def simulated(study: Mapping[str, Any], sites: Mapping[str, Path], folder: Path) -> Outcome:
    """What the undisturbed simulation ends with."""
    made = Study.model_validate(dict(study))
    configs = tuple(SiteConfig(name=name, data=data, device="cpu") for name, data in sites.items())
    opened = Field(configs, folder / "cache", folder / "sites").open()
    grid = InlineGrid(make_app(lambda c: opened[int(c.node_config["partition-id"])]), len(opened))
    members = join(grid, made)
    roster = [members[s] for s in sites]
    Run(grid, made, folder / "run", roster, roster).start()
    return outcome_of(folder / "run")


class Toy:
    """A deployment on which toy studies are run, one after the other.

    Args:
        folder: Gets everything.
        number: How many sites.
        ports: The coordinator's, and that by which sites reach it.
        study: What is run if nothing else is said.
    """

    def __init__(
        self, folder: Path, number: int = 2, ports: tuple[int, int] | None = None, study: Mapping[str, Any] = STUDY
    ) -> None:
        self._folder = folder
        self._study = study
        self._runs = 0
        self.sites = hospitals(folder / "scans", number)
        self.expected = self.simulated(study)
        self.deployment = Deployment(folder / "real", *(ports or ()))
        self.deployment.init()
        for name, data in self.sites.items():
            self.deployment.enrol(name, data=str(data))

    def simulated(self, study: Mapping[str, Any], sites: Sequence[str] = ()) -> Outcome:
        """What the undisturbed simulation ends with."""
        taking_part = {s: self.sites[s] for s in sites or self.sites}
        return simulated(study, taking_part, self._folder / "inline" / str(len(list(self._folder.glob("inline/*")))))

    def start(self) -> None:
        self.deployment.start_server()
        for site in self.sites:
            self.deployment.start_site(site)

    def begin(self, study: Mapping[str, Any] | None = None, sites: Sequence[str] = ()) -> str:
        """Start the next run; its name."""
        self._runs += 1
        run = f"run-{self._runs}"
        self.deployment.begin(self.deployment.sign(study or self._study, run), sites)
        return run

    def outcome(self, run: str, seconds: float = 300) -> Outcome:
        """What the run ends with; waits for it."""
        self.deployment.wait(run, seconds)
        return outcome_of(self.deployment.run_folder(run))
