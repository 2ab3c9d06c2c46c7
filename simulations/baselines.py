"""The consensus of the local models: what the sites could have without any federation, by exchanging models once."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from client.evaluation import evaluate
from client.own_layers import load_own_layers
from client.training import channels_last
from client.work.results import write_results
from client.work.state import SiteState
from common.errors import CheckpointError
from common.nets import build_net
from common.study import Study
from common.wire import Schema
from server.checkpoint import Checkpoints
from server.events import read_events
from simulations.arms import Arm
from simulations.sites import Field

Progress = Callable[[str, int, int], None]  # site, cases done, cases in all


def is_finished(run: Path) -> bool:
    """Whether the run went to its end."""
    return [e["event"] for e in read_events(run / "events.jsonl")[-1:]] == ["finished"]


def best_model(study: Study, run: Path, home: Path | None = None) -> nn.Module:
    """The net of the round of `run` that was best on the validation cases, as the site with `home` has it."""
    schema = Schema.of(study)
    checkpoints = Checkpoints(run / "checkpoints", study.digest(), schema)
    state = checkpoints.state()
    if state is None:
        raise CheckpointError(f"{run} holds no finished round")
    net = channels_last(build_net(study))
    chosen = state.best_round or state.round
    schema.load(checkpoints.weights(chosen), net)
    if home is not None:
        load_own_layers(net, study, SiteState(home / "state" / run.name).load(chosen))
    return net.eval()


def consensus(study: Study, field: Field, local: Sequence[Arm], folder: Path, progress: Progress) -> None:
    """Average the local models' probabilities on every test case; per-case results go to the sites' homes.

    A local model that could not be trained takes no part.
    """
    pending = [s for s in field.open()[:-1] if not consensus_results(s.home).exists()]
    runs = [(arm, folder / "runs" / arm.run) for arm in local]
    nets = [best_model(arm.study, run) for arm, run in runs if is_finished(run)] if pending else []
    for site in pending if nets else ():
        models = [net.to(site.workplace.device) for net in nets]
        told = partial(progress, site.config.name)
        results = evaluate(models, site.data(study).test, study, site.workplace.device, told)
        write_results(consensus_results(site.home), study, results)


def consensus_results(home: Path) -> Path:
    """Where a site keeps the consensus' results."""
    return home / "results" / "consensus" / "round-00000-test.json"
