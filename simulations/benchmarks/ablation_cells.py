"""One cell of the ablation: a run by the ordinary rounds, and its last model scored with several statistics.

In training mode batch normalisation reads the statistics of the batch, never the running ones. So the parameters that a
run ends with are the same bits whatever becomes of the running statistics, and one run is scored in every way.
"""

import common.quiet  # noqa: F401

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from flwr.app import Context
from torch import nn

from client.app import make_app
from client.evaluation import CaseResult, evaluate
from client.metrics import mean
from client.open_site import OpenSite
from client.training import autocast, channels_last
from common.disk import write_whole
from common.nets import build_net
from common.schema import Schema, running_statistics
from common.section import AT_SITE
from common.study import Study
from server.aggregation import weighted_mean
from server.joining import join
from server.rounds import Run
from server.spool import Spool
from simulations.arms import POOLED, Arm, arms
from simulations.baselines import best_model, is_finished
from simulations.inline import InlineGrid
from simulations.sites import Field

SCORINGS = ("first", "own", "pooled", "anew")
BATCHES = 20  # for statistics that are measured anew
Scores = dict[str, dict[str, list[float]]]  # by scoring and site, a Dice for each test case


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        study: What is trained; only its last round is validated.
        method: Key of its arms (`simulations/arms.py`); `local` are as many runs as sites.
        folder: Where it lies.
    """

    study: Study
    method: str
    folder: Path

    def arms(self, sites: Sequence[str]) -> list[Arm]:
        """Its runs over the sites that train."""
        return [a for a in arms(self.study, [self.study.strategy], sites) if a.method == self.method]

    def field(self, described: Path) -> Field:
        """The sites, each with a home of this cell's."""
        field = Field.read(described)
        return Field(field.configs, field.cache, self.folder / "sites")


def train(study: str, method: str, folder: Path, described: Path) -> float:
    """Train, or go on with it; returns the sites' mean Dice on validation cases after the last round.

    Args:
        study: As JSON.
        method: See `Cell`.
        folder: See `Cell`.
        described: The file in which the sites are described.
    """
    cell = Cell(Study.model_validate_json(study, context=AT_SITE), method, folder)
    field = cell.field(described)
    sites, reached = field.open(), []
    grid = InlineGrid(make_app(partial(_site, sites)), len(sites))
    members = join(grid, cell.study)
    for arm in cell.arms(field.training):
        judges = field.training if arm.train == (POOLED,) else arm.train
        run = Run(grid, arm.study, folder / "runs" / arm.run, [members[n] for n in arm.train], [],
                  [members[n] for n in judges])  # fmt: skip
        reached.append(run.start().best_metric)
    return mean(reached).value


def score(study: str, method: str, folder: Path, described: Path) -> Scores:
    """Judge the last round's model on the test cases, once; arguments as of `train`, which must have ended.

    Returns:
        `first`: every site's cases with the statistics of the first site, as FLamby's benchmark has it; `own`: with
        those of the site whose cases they are; `pooled`: with those that the coordinator makes of all; `anew`: with
        those that the averaged weights themselves have on the site's training patches. Where no statistics are left at
        sites, `own` alone.
    """
    path = folder / "test.json"
    if path.exists():
        found: Scores = json.loads(path.read_text("utf-8"))
        return found
    cell = Cell(Study.model_validate_json(study, context=AT_SITE), method, folder)
    field = cell.field(described)
    sites = {s.config.name: s for s in field.open()[:-1]}
    scores: Scores = {}
    for arm in cell.arms(field.training):
        tested = [sites[arm.trained_on]] if arm.trained_on in sites else list(sites.values())
        for scoring, net_for in nets(arm, folder / "runs" / arm.run, list(sites.values())).items():
            at = scores.setdefault(scoring, {})
            for site in tested:
                results = evaluate(net_for(site), site.data(arm.study).test, arm.study, site.workplace.device)
                at[site.config.name] = [dice_of(r) for r in results]
    text = json.dumps(scores)
    write_whole(path, lambda part: part.write_text(text, "utf-8"))
    return scores


def nets(arm: Arm, run: Path, sites: Sequence[OpenSite]) -> dict[str, Callable[[OpenSite], nn.Module]]:
    """By scoring, the net with which a site's cases are judged; `run` is the finished run of `arm`."""
    study = arm.study
    if not is_finished(run):
        raise RuntimeError(f"{run} has not come to its end")
    if study.rounds.buffers != "local" or not running_statistics(build_net(study)):
        net = best_model(study, run)
        return {"own": lambda site: net}
    first, pooled = best_model(study, run, sites[0].home), pooled_statistics(study, run, sites)
    return {
        "first": lambda site: first,
        "own": lambda site: best_model(study, run, site.home),
        "pooled": lambda site: pooled,
        "anew": lambda site: measured_anew(best_model(study, run, site.home), study, site),
    }


def pooled_statistics(study: Study, run: Path, sites: Sequence[OpenSite]) -> nn.Module:
    """The run's last net with the statistics of all sites, put together as the coordinator does."""
    whole = study.model_copy(update={"rounds": study.rounds.model_copy(update={"buffers": "aggregate"})})
    schema = Schema.of(whole)
    spool = Spool(run / "statistics", schema)
    for site in sites:
        spool.add(1, site.config.name, schema.pack(best_model(study, run, site.home).state_dict()), {})
    replies = spool.replies(1, tuple(site.config.name for site in sites))
    flat = weighted_mean(schema, replies, [len(site.data(study).train) for site in sites])
    spool.clear()
    net = channels_last(build_net(whole))
    schema.load(flat, net)
    return net.eval()


def measured_anew(net: nn.Module, study: Study, site: OpenSite) -> nn.Module:
    """`net`, its statistics replaced by their means over some training batches of the site, weights as they are."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    net.train()
    device = site.workplace.device
    with torch.no_grad(), autocast(study.training, device):
        for image, _ in site.batches(study).prefetch(0, BATCHES):
            net(image.to(device))
    return net.eval()


def dice_of(result: CaseResult) -> float:
    """A case's Dice, mean over the labels that it has."""
    return mean(result.dice).value


def _site(sites: Sequence[OpenSite], context: Context) -> OpenSite:
    return sites[int(context.node_config["partition-id"])]
