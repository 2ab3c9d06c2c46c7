"""Prepared cases on disk: `cache/<key[:2]>/<key>/`, complete or absent, readable without pickle."""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data.preprocess import Meta
from client.data.volume import CachedCase
from common.disk import not_written

META = "meta.json"


def load_image(case: CachedCase) -> NDArray[np.float32]:
    """`(C, *S)` float32 on the plan's grid, memory-mapped read-only."""
    image: NDArray[np.float32] = _map(case, "image")
    return image


def load_label(case: CachedCase) -> NDArray[np.uint8]:
    """`(*S)` uint8 on the plan's grid, IGNORE where there is no label; memory-mapped read-only."""
    label: NDArray[np.uint8] = _map(case, "label")
    return label


def load_truth(case: CachedCase) -> NDArray[np.uint8]:
    """The label map, uint8, on the case's own grid in RAS+ order, IGNORE without a label; memory-mapped read-only."""
    truth: NDArray[np.uint8] = _map(case, "truth")
    return truth


def load_foreground(case: CachedCase) -> NDArray[np.int32]:
    """`(N, dims + 1)` int32: labelled voxels on the plan's grid, each with its label last; N may be 0."""
    return np.load(case.folder / "foreground.npy", allow_pickle=False)  # type: ignore[no-any-return]


def load_meta(case: CachedCase) -> Meta:
    """Both grids of the case, as `preprocess.restore` takes them, and its label counts."""
    return meta_in(case.folder)


def meta_in(folder: Path) -> Meta:
    """The meta data of the prepared case in `folder`."""
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    return {
        "image": meta["image"],
        "content": meta["content"],
        "own": meta["own"],
        "plan": meta["plan"],
        "voxels": meta["voxels"],
        "plan_voxels": meta["plan_voxels"],
        "unlabelled": meta["unlabelled"],
        "notes": meta["notes"],
        "gate": meta["gate"],
    }


def folder_of(cache: Path, key: str) -> Path:
    """Where the case with `key` lies, or will lie."""
    return cache / key[:2] / key


def is_complete(folder: Path) -> bool:
    """Whether every file of a prepared case is there in the size in which it was written."""
    try:
        meta_in(folder)
        sizes = json.loads((folder / META).read_text(encoding="utf-8"))["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def store(folder: Path, arrays: Mapping[str, NDArray[Any]], meta: Meta) -> None:
    """Write a case so that `folder` appears complete or not at all; another process may write the same meanwhile.

    Raises:
        StorageError: The disk is full, or the folder may not be written.
    """
    temporary = folder.parent / f".{folder.name[:16]}.{secrets.token_hex(6)}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        temporary.mkdir()
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        sizes = {f"{name}.npy": (temporary / f"{name}.npy").stat().st_size for name in arrays}
        (temporary / META).write_text(json.dumps({**meta, "bytes": sizes}), encoding="utf-8")
        _publish(temporary, folder)
    except OSError as error:
        raise not_written(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, folder: Path) -> None:
    """Rename; where a complete folder stands already, equal keys mean equal arrays and it stays."""
    for _ in range(3):
        try:
            os.replace(temporary, folder)
            return
        except OSError:
            if is_complete(folder):
                return
            # A folder left damaged (power cut, full disk) makes room.
            shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind; a day is longer than any case takes."""
    for left in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left)


def _map(case: CachedCase, name: str) -> Any:
    return np.load(case.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
