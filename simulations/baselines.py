"""The consensus of the local models: what the sites could have without any federation, by exchanging models once."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from client.app import load_buffers
from client.evaluation import evaluate
from client.results import write_results
from client.state import SiteState
from client.training import channels_last
from common.errors import CheckpointError
from common.nets import build_net
from common.study import Study
from common.wire import Schema
from server.checkpoint import Checkpoints
from simulations.arms import Arm
from simulations.sites import Field


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
        load_buffers(net, study, SiteState(home / "state" / run.name).load(chosen))
    return net.eval()


def consensus(study: Study, field: Field, local: Sequence[Arm], folder: Path) -> None:
    """Average the local models' probabilities on every test case; per-case results go to the sites' homes."""
    pending = [s for s in field.open()[:-1] if not consensus_results(s.home).exists()]
    if not pending:
        return
    nets = [best_model(arm.study, folder / "runs" / arm.run) for arm in local]
    for site in pending:
        models = [net.to(site.workplace.device) for net in nets]
        results = evaluate(models, site.data(study).test, study, site.workplace.device)
        write_results(consensus_results(site.home), study, results)


def consensus_results(home: Path) -> Path:
    """Where a site keeps the consensus' results."""
    return home / "results" / "consensus" / "round-00000-test.json"
