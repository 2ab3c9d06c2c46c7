"""What a simulation says while it runs of cases that it cannot use."""

from pathlib import Path

from client.site import SiteConfig
from common.study import Study
from simulations.phantom import make_phantom
from simulations.run import Watcher, simulate
from simulations.simulation import Simulation


class Notes(Watcher):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_case_that_is_left_out_is_told_of_with_its_remedy(tmp_path: Path) -> None:
    folders = make_phantom(tmp_path / "scans", sites=2, cases=5, dimensions=2, difference=0.0, seed=1)
    bad = sorted((folders[0] / "imagesTr").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:200])
    study = Study.model_validate({
        "name": "toy", "data": {"labels": ["liver", "kidneys"], "dimensions": 2},
        "plan": {"size": [32, 32], "patch": [16, 16]}, "net": {"name": "unet", "width": 4, "levels": 2},
        "training": {"steps": 1, "batch": 1}, "rounds": {"number": 1},
    })  # fmt: skip
    sites = tuple(SiteConfig(name=f.name, data=f) for f in folders)
    notes = Notes()
    report = simulate(Simulation(study, sites, (study.strategy,), tmp_path / "out", tmp_path / "cache"), notes)
    assert report.is_file()
    (note,) = notes.notes
    assert note.startswith(f"site {folders[0].name}: 1 case is left out (unreadable): {bad}: damaged")
    assert note.endswith("Copy or export the file again.")
