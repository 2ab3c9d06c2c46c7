"""A model with random weights that says every class somewhere, and the masks that the evaluation would judge."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from client.data.prepare import prepare
from client.inference import segment
from client.site import SiteConfig
from client.training import channels_last
from common.bundle import write_bundle
from common.figures import Figures
from common.nets import build_net
from common.study import Study
from common.wire import Schema

FIGURES = Figures(round=1, rounds=1, sites=1, cases=1)
CPU = torch.device("cpu")
CRF = {"name": "crf", "appearance": 0.2, "smoothness": 0.1}


def study_of(**other: Any) -> Study:
    """Everything at once: another voxel size, windows, mirror images, steps before and after the maximum."""
    data: dict[str, Any] = {
        "name": "s", "data": {"labels": ["a", "b"]}, "plan": {"spacing": [1.3, 1.1, 1.7], "patch": [8, 8, 8]},
        "net": {"name": "unet", "width": 2, "levels": 2}, "training": {"steps": 1}, "rounds": {"number": 1},
        "evaluation": {"mirror": True, "overlap": 0.5}, "postprocess": [CRF, "largest_component"],
    }  # fmt: skip
    return Study.model_validate({**data, **other})


def model(folder: Path, study: Study) -> torch.nn.Module:
    """A net that says each class somewhere: random weights, its classes made equally likely."""
    torch.manual_seed(2)
    net = build_net(study).eval()
    with torch.no_grad():
        weight, bias = list(net.parameters())[-2:]
        weight *= 30
        noise = ndimage.gaussian_filter(np.random.default_rng(9).normal(size=study.plan.patch), 1.5)
        x = torch.from_numpy((noise / noise.std()).astype(np.float32))[None, None]
        bias -= net(x).mean(dim=tuple(range(2, x.ndim)))[0]
    write_bundle(folder, study, "run-1", Schema.of(study).pack(net.state_dict()), FIGURES)
    return channels_last(net)


def judged(study: Study, site: SiteConfig, folder: Path, net: torch.nn.Module) -> dict[str, np.ndarray]:
    """The masks that the evaluation holds against the annotation, in RAS+ order, by case."""
    config = site.model_copy(update={"use": "test"})
    found = prepare(study, config, cache=folder / "cache", home=folder / "home")
    return {c.id: segment([net], c, study, CPU) for c in (*found.train, *found.validation, *found.test)}
