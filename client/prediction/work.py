"""One subject through the model: the same preparation, windows and post-processing as in the study's evaluation."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from client.data.assemble import channels_of, joined, on_plan
from client.data.dicom.workers import shared_workers
from client.data.readers import nifti, suffix
from client.data.volume import Stack, Volume
from client.data.writers.nifti import turned_back, write_like, write_on
from client.inference import segment_image
from client.prediction.inputs import Subject
from client.training import channels_last
from common.bundle import SHORT, Bundle, name_of
from common.codes import value_of
from common.disk import write_whole
from common.errors import DataError

SECONDS = 600.0  # that writing a DICOM SEG may take

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Predicted:
    """What was written of a subject.

    Attributes:
        subject: Whose.
        mask: The mask, NIfTI or, of a picture, PNG.
        seg: The DICOM SEG; none for other formats, and where nothing was found.
        volumes: Millilitres of each label, in the study's order; voxels where the image has no physical size.
    """

    subject: Subject
    mask: Path
    seg: Path | None
    volumes: tuple[float, ...]


class Predictor:
    """A model on a device.

    Args:
        bundle: The model.
        device: Where it computes.

    Raises:
        ModelError: It is not whole.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle = bundle
        self.study = bundle.study
        self._device = device
        self._net = channels_last(bundle.net().to(device))

    def mask(self, image: Volume) -> Mask:
        """The label map of `image` `(C, *S)`: `(*S)` uint8, on the image's own grid.

        Raises:
            DataError: The image does not fit the study, or not into the device's memory.
        """
        self._check(image)
        seen, grids = on_plan(image, self.study.plan)
        try:
            return segment_image([self._net], seen, grids, self.study, self._device)
        except torch.OutOfMemoryError:
            raise DataError(
                f"an image of {'x'.join(map(str, image.array.shape[1:]))} voxels does not fit into the memory of "
                f"{self._device}; try --device cpu"
            ) from None

    def write(self, subject: Subject, out: Path) -> Predicted:
        """Look at a subject and write what is found into `out`.

        Raises:
            DataError: The subject cannot be read or does not fit the study.
            StorageError: The disk is full.
        """
        images = channels_of(subject.images, self.study)
        if any(v.array.shape[1:] != images[0].array.shape[1:] for v in images[1:]):
            raise DataError(f"{subject.where}: its channels have different sizes; resample them to one grid")
        image = joined(images)
        mask = self.mask(image)
        counts = np.bincount(mask.ravel(), minlength=self.study.classes)[1 : self.study.classes]
        source = subject.images[0]
        seg = None
        if isinstance(source, Stack):
            path, seg = self._write_stack(mask, image, source, out / subject.name)
            size = _voxel(source.affine) if len(source.shape) == 3 else 1.0
        elif suffix(source) in nifti.SUFFIXES:
            path, size = out / f"{subject.name}.nii.gz", _voxel(image.affine)
            write_like(mask, image, source, path, self._about)
        elif mask.ndim == 2:
            path, size = out / f"{subject.name}.png", 1.0
            write_png(mask, path)
        else:
            path, size = out / f"{subject.name}.nii.gz", _voxel(image.affine)
            write_on(mask, image.affine, path, self._about)
        return Predicted(subject, path, seg, tuple(float(n) * size for n in counts))

    @property
    def _about(self) -> str:
        return f"fedscan {name_of(self.study, self.bundle.card.model)}: research only"

    def _check(self, image: Volume) -> None:
        data, shape = self.study.data, image.array.shape
        if len(shape) - 1 != data.dimensions:
            raise DataError(f"the image has {len(shape) - 1} dimensions, the study looks at {data.dimensions}")
        if shape[0] != len(data.channels):
            raise DataError(f"the image has {shape[0]} channel(s), the study wants {', '.join(data.channels)}")
        if image.array.dtype.kind == "f" and not np.isfinite(image.array).all():
            raise DataError("the image holds NaN or infinite values; export it again")

    def _write_stack(self, mask: Mask, image: Volume, stack: Stack, path: Path) -> tuple[Path, Path | None]:
        """NIfTI (of a picture PNG) on the grid of the stored slices, and DICOM SEG."""
        own = turned_back(mask, image.affine, stack.affine, stack.shape)
        if len(stack.shape) == 3:
            written, slices = path.with_name(f"{path.name}.nii.gz"), own.transpose(2, 1, 0)
            write_on(own, stack.affine, written, self._about)
        else:
            written, slices = path.with_name(f"{path.name}.png"), own[np.newaxis]
            write_png(own, written)
        return written, self._write_seg(np.ascontiguousarray(slices), stack, path.with_name(f"{path.name}.dcm"))

    def _write_seg(self, slices: Mask, stack: Stack, path: Path) -> Path | None:
        with TemporaryDirectory(dir=path.parent, prefix=".seg-") as scratch:
            mask, made = Path(scratch) / "mask.npy", Path(scratch) / "seg.dcm"
            np.save(mask, slices, allow_pickle=False)
            answer = shared_workers().ask(
                "write-seg", seconds=SECONDS, files=[str(f) for f in stack.files], frames=list(stack.frames),
                mask=str(mask), labels=self._labels(), about=self._algorithm(), into=str(made),
            )  # fmt: skip
            if not answer["frames"]:
                return None
            write_whole(path, lambda part: os.replace(made, part))
        return path

    def _labels(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for label in self.bundle.card.labels[1:]:
            code = value_of(label.code) if label.code else ""
            meaning = label.code.split("|")[1] if label.code else label.name
            found.append({"value": label.value, "name": label.name, "code": code, "meaning": meaning})
        return found

    def _algorithm(self) -> dict[str, str]:
        model = self.bundle.card.model
        return {
            "series": f"fedscan {self.study.name[:30]}: research only", "name": self.study.name,
            "version": f"{self.bundle.card.versions['fedscan']} {model[:SHORT]}", "model": model,
        }  # fmt: skip


def write_png(mask: Mask, path: Path) -> None:
    """Write the mask of a picture `(H, W)`: grey values are labels. Raises StorageError."""
    write_whole(path, lambda part: Image.fromarray(mask).save(part, format="PNG"))


def _voxel(affine: NDArray[np.float64]) -> float:
    """Millilitres of one voxel."""
    return float(abs(np.linalg.det(affine[:3, :3]))) / 1000
