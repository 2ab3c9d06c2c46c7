"""What federation costs beyond the training steps: `python -m simulations.benchmarks.overhead`.

A: a FedAvg study as `fedscan simulate` runs it, from the first message to the last event: inline grid, app, rounds,
spool, fold, checkpoints, site state. B: the same training steps alone, that is `client.training.train` on the same
batches, once per site without a round. Both run in this process, interleaved (B A B A …), and the medians are divided.
Left out on both sides: validation and test (the sites have no cases for them), and imports. B's net is built before its
clock starts; A's is built on the clock. Processor time stands beside wall time, for machines that do other work too.
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

import numpy as np
import torch

from client.app import OpenSite, Workplace, make_app
from client.data.cache import store
from client.data.patches import Batches
from client.data.preprocess import grid
from client.data.volume import CachedCase, SiteData
from client.site import SiteConfig
from client.training import Span, channels_last, make_optimizer, train
from common.losses import build_loss
from common.nets import build_net
from common.seeds import derive, generator
from common.study import Study
from common.wire import Terms
from server.rounds import Run, join
from simulations.inline import InlineGrid

SITES, CASES, SHAPE = 3, 4, (48, 64, 48)
TARGET = 1.05


class Seconds(NamedTuple):
    """Time of one run."""

    wall: float
    cpu: float


def study(steps: int, rounds: int) -> Study:
    """A small 3D net on patches of the size that hippocampus scans have."""
    return Study.model_validate(
        {
            "name": "overhead",
            "data": {"labels": ["organ"]},
            "plan": {"patch": [40, 56, 40]},
            "net": {"name": "dynunet", "size": "small"},
            "training": {"steps": steps, "batch": 2, "precision": "fp32"},
            "rounds": {"number": rounds},
        }
    )


def make_sites(folder: Path) -> list[SiteData]:
    """Prepared training cases: a bright ball on noise."""
    sites = []
    for site in range(SITES):
        cases = []
        for number in range(CASES):
            key = f"{site}{number}".rjust(64, "0")
            rng = generator(site, "overhead", number)
            centre = rng.integers(16, 32, 3)
            label = (((np.indices(SHAPE).T - centre) ** 2).sum(-1).T < 100).astype(np.uint8)
            image = (label + rng.normal(size=SHAPE))[None].astype(np.float32)
            place = grid(SHAPE, np.eye(4))
            voxels = [int(label.sum())]
            foreground = np.column_stack([np.argwhere(label), label[label > 0]]).astype(np.int32)
            store(
                folder / key,
                {"image": image, "label": label, "truth": label, "foreground": foreground},
                {"image": key, "plan": place, "own": place, "voxels": voxels, "plan_voxels": voxels},
            )
            cases.append(CachedCase(key, key, folder / key, key, key))
        sites.append(SiteData(tuple(cases), (), ()))
    return sites


def federated(study: Study, sites: list[SiteData], folder: Path) -> None:
    """A: the study through the product."""
    place = Workplace(torch.device("cpu"))
    opened = [
        OpenSite(SiteConfig(name=f"site-{i}", data=folder), folder / f"site-{i}", partial(_same, data), place)
        for i, data in enumerate(sites)
    ]
    inline = InlineGrid(make_app(lambda c: opened[int(c.node_config["partition-id"])]), len(opened))
    members = list(join(inline, study).values())
    Run(inline, study, folder / "run", members, members).start()


def _same(data: SiteData, study: Study) -> SiteData:
    """A site's way to its cases: they are prepared."""
    return data


def bare(study: Study, sites: list[SiteData]) -> Callable[[], None]:
    """B: the same number of steps on the same batches; returned ready to start."""
    settings, count = study.training, (study.training.steps or 1) * study.rounds.number
    net, loss = channels_last(build_net(study)), build_loss(study)
    streams = [Batches(s.train, study, derive(study.seed, "batches", *(c.key for c in s.train))) for s in sites]

    def run() -> None:
        for batches in streams:
            optimizer = make_optimizer(net, settings)
            train(net, loss, optimizer, batches.prefetch(0, count), settings, Span(0, count, count), Terms())

    return run


def timed(work: Callable[[], None]) -> Seconds:
    """Wall and processor time of `work`, all threads together."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def main() -> int:
    """Measure and print as JSON; 0 if the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=15, help="training steps per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    a: list[Seconds] = []
    b: list[Seconds] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        sites = make_sites(folder / "cases")
        bare(study(2, 1), sites)()  # first kernels, first reads
        chosen = study(arguments.steps, arguments.rounds)
        for repeat in range(arguments.repeats):
            b.append(timed(bare(chosen, sites)))
            a.append(timed(partial(federated, chosen, sites, folder / str(repeat))))
    federation, steps = (Seconds(*map(statistics.median, zip(*runs, strict=True))) for runs in (a, b))
    ratio = Seconds(federation.wall / steps.wall, federation.cpu / steps.cpu)
    print(json.dumps({
        "workload": f"{SITES} sites, {arguments.rounds} rounds of {arguments.steps} steps, {arguments.repeats} repeats",
        "federated_seconds": federation._asdict(),
        "bare_seconds": steps._asdict(),
        "ratio": ratio._asdict(),
        "target_met": ratio.wall <= TARGET,
    }, indent=1))  # fmt: skip
    return 0 if ratio.wall <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
