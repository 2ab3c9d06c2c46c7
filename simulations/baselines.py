"""The consensus of the local models: what the sites could have without any federation, by exchanging models once."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from client.evaluation import evaluate
from client.own_layers import load_own_layers
from client.training import channels_last
from client.work.results import write_results
from client.work.state import SiteState
from common.disk import write_whole
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

    A local model that could not be trained takes no part. Results of other models than those that are there now, as
    after a failed run was resumed, are made anew.
    """
    runs = [(arm, folder / "runs" / arm.run) for arm in local]
    finished = [(arm, run) for arm, run in runs if is_finished(run)]
    names = [arm.run for arm, _ in finished]
    pending = [s for s in field.open()[:-1] if _averaged(s.home) != names]
    nets = [best_model(arm.study, run) for arm, run in finished] if pending else []
    for site in pending if nets else ():
        models = [net.to(site.workplace.device) for net in nets]
        told = partial(progress, site.config.name)
        results = evaluate(models, site.data(study).test, study, site.workplace.device, told)
        write_results(consensus_results(site.home), study, results)
        # After the results: between the two writes the old names stand beside the new results, which are made again.
        write_whole(_models(site.home), lambda part: part.write_text(json.dumps(names), encoding="utf-8"))


def consensus_results(home: Path) -> Path:
    """Where a site keeps the consensus' results."""
    return home / "results" / "consensus" / "round-00000-test.json"


def _models(home: Path) -> Path:
    """Where it stands which runs' models the results are of."""
    return consensus_results(home).with_name("models.json")


def _averaged(home: Path) -> list[str] | None:
    """The runs whose models the results in `home` are of; None where there are no results, or it is not known."""
    if not consensus_results(home).exists() or not _models(home).exists():
        return None
    names: list[str] = json.loads(_models(home).read_text(encoding="utf-8"))
    return names
