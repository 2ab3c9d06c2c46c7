"""One trial of a sweep in a process of its own: the federated run of every seed; or, for the chosen one, its test.

`python -m simulations.trial FOLDER run|test`; everything that it needs to know is in FOLDER and the one above it.
"""

import common.quiet  # noqa: F401

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from flwr.app import Context

from client.app import make_app
from client.evaluation import evaluate
from client.open_site import OpenSite
from client.work.results import write_results
from common.disk import write_whole
from common.errors import FedscanError
from common.section import AT_SITE
from common.start import start_file
from common.study import Study
from server.joining import join
from server.rounds import Run
from simulations.baselines import best_model, is_finished
from simulations.inline import InlineGrid
from simulations.resume import same_cases
from simulations.sites import Field

STUDY, FIELD, SEEDS, WHY = "study.json", "field.json", "seeds.json", "why.txt"


def seeded(folder: Path) -> list[tuple[Study, Path, Field]]:
    """The trial's study, folder and sites under each seed."""
    study = Study.model_validate_json((folder / STUDY).read_text("utf-8"), context=AT_SITE)
    field = Field.read(folder.parent / FIELD)
    found = []
    for seed in json.loads((folder.parent / SEEDS).read_text("utf-8")):
        home = folder / f"seed-{seed}"
        found.append((study.model_copy(update={"seed": seed}), home, replace(field, homes=home / "sites")))
    return found


def run(folder: Path) -> None:
    """Train under every seed, or go on with it; no test case is looked at."""
    for study, home, field in seeded(folder):
        path = home / "runs" / "trial"
        if is_finished(path):
            continue
        home.mkdir(parents=True, exist_ok=True)
        sites = field.open()[:-1]
        same_cases(home / "cases.json", {s.config.name: s.data(study) for s in sites})
        grid = InlineGrid(make_app(partial(_site, sites)), len(sites))
        members = join(grid, study)
        roster = [members[name] for name in field.training]
        Run(grid, study, path, roster, [], start=start_file(study, folder)).start()


def _site(sites: Sequence[OpenSite], context: Context) -> OpenSite:
    return sites[int(context.node_config["partition-id"])]


def test(folder: Path) -> None:
    """Judge the best round's model of each seed on every site's test cases."""
    for study, home, field in seeded(folder):
        for site in field.open()[:-1]:
            path = tested(home, site.config.name)
            cases = site.data(study).test
            if cases and not path.exists():
                net = best_model(study, home / "runs" / "trial", site.home).to(site.workplace.device)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_results(path, study, evaluate(net, cases, study, site.workplace.device))


def tested(home: Path, site: str) -> Path:
    """Where the chosen trial's results on test cases lie, of one seed."""
    return home / "sites" / site / "results" / "trial-test.json"


def main(folder: Path, what: str) -> int:
    """Do it; what goes wrong is left in a file, for whoever started this process."""
    why = folder / WHY
    why.unlink(missing_ok=True)
    try:
        {"run": run, "test": test}[what](folder)
    except FedscanError as error:
        text = str(error)
        write_whole(why, lambda part: part.write_text(text, encoding="utf-8"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
