"""The result of a run comes home: the final model and the study's figures, among the models that this site has."""

import common.quiet  # noqa: F401

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.corrections import under
from client.gates import float_norm
from client.handover.files import Arrays
from client.models import models_folder
from client.own_choice import read_choice
from client.own_layers import load_own_layers, own_layers
from client.work.outcome import Outcome
from client.work.state import SiteState
from client.work.tasks import Offer
from common.bundle import model_hash_of, name_of, write_bundle
from common.errors import WireError
from common.figures import Figures
from common.nets import build_net
from common.schema import Schema, left_at_sites
from common.study import Study
from common.traits import keeps_layers
from common.wire import RESULT_METRIC_KEYS, Flat, Task


def bring_home(home: Path, offer: Offer, arrays: Arrays) -> Outcome:
    """Keep the result that a verified manifest brings; the same result twice is one model.

    Args:
        home: The site's folder.
        offer: The task, of the kind `result`.
        arrays: The weights, already held against the manifest; the dictionary is emptied.

    Returns:
        The word that it is here: nothing else leaves.

    Raises:
        WireError: The weights are no numbers, or beyond the site's limit.
        StorageError: The disk is full.
    """
    study, figures = offer.study, offer.manifest.figures
    flat: Flat = {d: np.frombuffer(raw, np.dtype(d).newbyteorder("<")) for d, raw in arrays.items()}
    norm, most = float_norm(flat), offer.config.limits.norm
    if figures is None or not (math.isfinite(norm) and norm <= most):
        raise WireError(f"the result's weights have the norm {norm:g}; site.yaml allows {most:g} (limits.norm)")
    folder = models_folder(home) / name_of(study, model_hash_of(study, flat))
    own = _own(home / "trainer" / "runs", study, offer.task)
    write_bundle(folder, study, offer.manifest.run, flat, figures, local=own)
    arrays.clear()
    _keep_choice(home, study, offer.task.run, figures)
    return Outcome(dict.fromkeys(RESULT_METRIC_KEYS, 1.0))


def _keep_choice(home: Path, study: Study, run: str, figures: Figures) -> None:
    """Keep the model that this site chose instead of the global one, if it did; its scores are those of the study."""
    choice = read_choice(home / "trainer" / "runs", run)
    if choice is None:
        return
    name, tensors = choice
    with torch.device("meta"):
        stays = left_at_sites(build_net(study), study)
    flat = Schema.of(study).pack(tensors)
    own = {n: t for n, t in tensors.items() if n in stays} or None
    folder = models_folder(home) / name_of(study, model_hash_of(study, flat))
    write_bundle(folder, study, run, flat, figures, local=own, own=name)


def _own(runs: Path, study: Study, task: Task) -> dict[str, Tensor] | None:
    """The layers of its own with which this site made the final test, where the study leaves some here."""
    if not keeps_layers(study):
        return None
    net = build_net(study)
    load_own_layers(net, study, SiteState(runs / "state" / task.run).load(min(task.acknowledged, task.round)))
    return under("own.", own_layers(net, study))
