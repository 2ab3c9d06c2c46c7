"""What federation costs beyond the training steps: `python -m simulations.benchmarks.overhead`.

A: a FedAvg study as `fedscan simulate` runs it, from the first message to the last event: inline grid, app, rounds,
spool, fold, checkpoints, site state. B: the same training steps alone, that is `client.training.train` on the same
batches, once per site without a round. With `--ray`, C: A's app and rounds on Flower's own Ray simulation, its start
included. All run interleaved (B A C B A C …) in this process (Ray's workers in theirs) on prepared phantom sites; the
medians are divided. Left out on all sides: validation and test (the sites keep no cases for them), preparing the
cases, and imports. Processor time, of this process alone, stands beside wall time, for machines that do other work too.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from flwr.serverapp import Grid

from client.app import make_app
from client.open_site import OpenSite
from client.site import SiteConfig
from client.training import Span, channels_last, make_optimizer, train
from common.losses import build_loss
from common.nets import build_net
from common.study import Study
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid
from simulations.phantom import make_phantom
from simulations.sites import Field

SITES, CASES = 3, 6
TARGET = 1.05


class Seconds(NamedTuple):
    """Time of one run."""

    wall: float
    cpu: float


def study(steps: int, rounds: int) -> Study:
    """A small 3D net on patches of about the size that hippocampus scans have."""
    return Study.model_validate(
        {
            "name": "overhead",
            "data": {"labels": ["liver", "kidneys"]},
            "plan": {"patch": [40, 56, 40], "spacing": [2, 2, 2]},
            "net": {"name": "dynunet", "size": "small"},
            "training": {"steps": steps, "batch": 2, "precision": "fp32"},
            "rounds": {"number": rounds},
            "evaluation": {"validation": 0, "test": 0},
        }
    )


def federated(study: Study, field: Field, folder: Path, grid: Grid) -> None:
    """The study's rounds over all sites of the field, the pooled one left out."""
    joined = join(grid, study)
    members = [joined[name] for name in field.training]
    Run(grid, study, folder, members, members).start()


def inline(study: Study, field: Field, sites: list[OpenSite], folder: Path) -> None:
    """A: the study through the product."""
    app = make_app(lambda context: sites[int(context.node_config["partition-id"])])
    federated(study, field, folder, InlineGrid(app, len(sites)))


def on_ray(study: Study, field: Field, folder: Path) -> None:
    """C: the same on Ray."""
    from simulations.ray_engine import run_on_ray

    folder.mkdir()
    run_on_ray(field, folder, partial(federated, study, field, folder / "run"))


def bare(study: Study, sites: list[OpenSite]) -> None:
    """B: the same number of steps on the same batches."""
    count = (study.training.steps or 1) * study.rounds.number
    net = channels_last(build_net(study))
    loss = build_loss(study, net)
    for site in sites[:-1]:
        optimizer = make_optimizer(net, study.training)
        batches = site.batches(study).prefetch(0, count)
        train(net, loss, optimizer, batches, study.training, Span(0, count, count))


def timed(work: Callable[[], None]) -> Seconds:
    """Wall and processor time of `work`, all threads together."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def middle(runs: list[Seconds]) -> Seconds:
    """The medians."""
    return Seconds(*map(statistics.median, zip(*runs, strict=True)))


def main() -> int:
    """Measure and print as JSON; 0 if the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=15, help="training steps per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ray", action="store_true", help="also on Flower's Ray simulation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    times: dict[str, list[Seconds]] = {"bare": [], "federated": [], "ray": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        scans = make_phantom(folder / "scans", sites=SITES, cases=CASES)
        configs = tuple(SiteConfig(name=f.name, data=f, device="cpu") for f in scans)
        chosen = study(arguments.steps, arguments.rounds)
        field = Field(configs, folder / "cache", folder / "homes")
        sites = field.open()
        bare(study(2, 1), sites)  # preparing, first kernels, first reads
        for repeat in range(arguments.repeats):
            times["bare"].append(timed(partial(bare, chosen, sites)))
            home = Field(configs, folder / "cache", folder / f"homes-{repeat}")
            opened = home.open()
            for site in opened:
                site.data(chosen)
            times["federated"].append(timed(partial(inline, chosen, home, opened, folder / f"run-{repeat}")))
            if arguments.ray:
                times["ray"].append(timed(partial(on_ray, chosen, home, folder / f"ray-{repeat}")))
    medians = {what: middle(runs) for what, runs in times.items() if runs}
    ratio = {what: m.wall / medians["bare"].wall for what, m in medians.items() if what != "bare"}
    print(json.dumps({
        "workload": f"{SITES} sites, {arguments.rounds} rounds of {arguments.steps} steps, {arguments.repeats} repeats",
        "seconds": {what: m._asdict() for what, m in medians.items()},
        "wall_ratio": ratio,
        "cpu_ratio": medians["federated"].cpu / medians["bare"].cpu,
        "target_met": ratio["federated"] <= TARGET,
    }, indent=1))  # fmt: skip
    return 0 if ratio["federated"] <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
