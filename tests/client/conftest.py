"""Prepared cases and studies, tiny, made on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client.data.cache import store
from client.data.preprocess import Grid, Meta, grid
from client.data.volume import CachedCase
from common.study import Study

MakeCase = Callable[..., CachedCase]
MakeStudy = Callable[..., Study]


def _grid(shape: tuple[int, ...], step: float, like: tuple[int, ...]) -> Grid:
    """A grid of `step` mm voxels with the same field of view as `like` voxels of 1 mm."""
    affine = np.diag([step, step, step, 1.0])
    affine[: len(shape), 3] = [step / 2 * (1 - n) + (m - 1) / 2 for n, m in zip(shape, like, strict=True)]
    return grid(shape, affine)


@pytest.fixture
def make_case(tmp_path: Path) -> MakeCase:
    """Writes the folder of a prepared case: image (C, *S), label (*S), truth on its own, finer or equal grid."""

    def make(name: str, image: NDArray[Any], label: NDArray[Any], truth: NDArray[Any] | None = None) -> CachedCase:
        folder = tmp_path / "cache" / name
        own = label if truth is None else truth
        meta: Meta = {
            "image": name,
            "plan": _grid(label.shape, 1.0, label.shape),
            "own": _grid(own.shape, label.shape[0] / own.shape[0], label.shape),
            "voxels": [int((own == 1).sum())],
            "plan_voxels": [int((label == 1).sum())],
        }
        arrays = {
            "image": image.astype(np.float32),
            "label": label.astype(np.uint8),
            "truth": own.astype(np.uint8),
            "foreground": np.column_stack([np.argwhere(label), label[label > 0]]).astype(np.int32),
        }
        store(folder, arrays, meta)
        return CachedCase(name, f"patient-{name}", folder, name, name)

    return make


@pytest.fixture
def make_study() -> MakeStudy:
    """A study with the given patch; `labels`, `channels`, `training` and `evaluation` as wanted."""

    def make(patch: tuple[int, ...], **parts: Any) -> Study:
        labels, channels = parts.pop("labels", ["organ"]), parts.pop("channels", ["image"])
        training = {"steps": 1, "augment": "none", **parts.pop("training", {})}
        data = {"labels": labels, "channels": channels, "dimensions": len(patch)}
        plan = {"patch": list(patch), **parts.pop("plan", {})}
        return Study.model_validate({"name": "test", "data": data, "plan": plan, "training": training, **parts})

    return make
