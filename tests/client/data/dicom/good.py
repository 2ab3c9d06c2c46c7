"""Good series whose voxels and place are known, and what a scan of a folder gives; the torture suite starts here.

Truth never comes from our own reader: the made-up series is written from an array, the real one is read by SimpleITK.
"""

import contextlib
import io
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from client.data.dicom.problems import REASONS
from client.data.dicom.scan import scan
from client.data.readers import read
from client.data.volume import Finding, Stack, Volume
from common.errors import DataError
from common.seeds import generator
from simulations.dicom_series import Acquisition, write_series

REAL = "prostate-mr-study-dicom/ProstateX-0000/07-07-2011/7.000000-ep2ddifftraDYNDISTADC-48780"
# Words of the patients that no finding may repeat.
PATIENT, NAME = "canary-4711", "Kanarienvogel^Karl"


@dataclass(frozen=True)
class Truth:
    """A volume as it should be read: `(X, Y, Z)` and `(4, 4)`, both RAS+."""

    array: NDArray[np.generic]
    affine: NDArray[np.float64]

    def slices(self, which: slice | Sequence[int]) -> "Truth":
        """Only these neighbouring slices (last axis)."""
        chosen = np.arange(self.array.shape[2])[which]
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, 2] * chosen[0]
        return Truth(self.array[:, :, chosen], affine)

    def stretched(self, factor: float) -> "Truth":
        """With slices that lie `factor` times as far apart."""
        return replace(self, affine=self.affine @ np.diag([1, 1, factor, 1]))

    def is_read_as(self, volume: Volume) -> bool:
        """Identical voxels, and the same place to 1e-4 mm."""
        same = volume.array.shape[1:] == self.array.shape and np.array_equal(volume.array[0], self.array)
        return same and bool(np.abs(volume.affine - self.affine).max() < 1e-4)


@dataclass(frozen=True)
class Good:
    """A series without a defect.

    Attributes:
        files: The bytes of its files in the order of the truth's last axis.
        truth: What is to be read.
    """

    files: tuple[bytes, ...]
    truth: Truth

    def sets(self) -> list[Dataset]:
        """Data sets to be spoilt."""
        return [dcmread(io.BytesIO(data)) for data in self.files]


def made_up(folder: Path, *, patient: str = PATIENT, modality: str = "CT", enhanced: bool = False) -> Good:
    """A small CT-like series (40 x 44 x 9), known because it is made here."""
    rng = generator(7, "torture", patient)
    array = rng.integers(-900, 1500, (40, 44, 9)).astype(np.int16)
    # Smooth, so that compressed frames are like real ones.
    array = ((array + np.roll(array, 1, 0) + np.roll(array, 1, 1)) // 3).astype(np.int16)
    affine = np.diag([-1.5, -1.25, 3, 1])
    affine[:3, 3] = 30, 25, -12
    how = Acquisition(modality, offset=1024 if modality == "CT" else 0, enhanced=enhanced)
    sets = write_series(array, affine, folder, patient, how)
    for data in sets:
        data.PatientName = NAME
    # From LPS order to RAS+ order: the first two axes run backwards.
    turned = affine.copy()
    turned[:2, 3] += [affine[0, 0] * 39, affine[1, 1] * 43]
    turned[:2, :2] *= -1
    return Good(tuple(_bytes(d) for d in sets), Truth(array[::-1, ::-1], turned))


def real(folder: Path) -> Good:
    """A diffusion map of the prostate (84 x 128 x 19), read by SimpleITK."""
    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder / REAL))
    reader.SetFileNames(names)
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine = np.diag([-1, -1, 1, 1]) @ affine
    array = sitk.GetArrayFromImage(image).T
    for axis in (0, 1):
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
    sets = [dcmread(name) for name in names]
    for data in sets:
        data.PatientName, data.PatientID = NAME, PATIENT
    return Good(tuple(_bytes(d) for d in sets), Truth(array[::-1, ::-1], affine))


def _bytes(data: Dataset) -> bytes:
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def save(sets: Iterable[Dataset], folder: Path, *, first: int = 0) -> list[Path]:
    """Write data sets as numbered files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, data in enumerate(sets, start=first):
        paths.append(folder / f"{number:04d}.dcm")
        paths[-1].write_bytes(_bytes(data))
    return paths


@dataclass
class Outcome:
    """What a scan of a folder, and a reading of all that it found, came to.

    Attributes:
        volumes: What could be read.
        refused: Reasons of the stacks that were listed but could not be read.
        findings: Of the scan.
        seconds: Of everything.
        grown: Bytes by which this process's peak memory rose.
    """

    volumes: list[tuple[Stack, Volume]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    grown: int = 0

    @property
    def codes(self) -> set[str]:
        """Codes of findings, and reasons of refusals when the voxels were read."""
        return {f.code for f in self.findings} | set(self.refused)

    def text(self) -> str:
        """All words that people would see."""
        return "\n".join([f"{f.what} {f.remedy}" for f in self.findings] + self.refused)


def outcome(folder: Path, unpacked: Path) -> Outcome:
    """Scan `folder` (archives are unpacked into `unpacked`), read every stack."""
    result = Outcome()
    start, before = time.monotonic(), _reset_peak()
    stacks, _, result.findings = scan(folder, unpacked=unpacked)
    for stack in stacks:
        try:
            result.volumes.append((stack, read(stack)))
        except DataError as error:
            result.refused += reasons(error)
    result.seconds, result.grown = time.monotonic() - start, _peak() - before
    return result


def reasons(error: DataError) -> list[str]:
    """Why something cannot be read, as a finding's code: the words are those of REASONS."""
    note = getattr(error, "note", None)
    if note:
        return [str(note.code)]
    return [f"dicom-{reason}" for reason, words in REASONS.items() if words in str(error)] or [str(error)]


def _reset_peak() -> int:
    """Let the high-water mark of resident memory start anew (proc(5)); its value."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
