"""Seconds and memory from DICOM files to voxels, beside SimpleITK: `python -m simulations.benchmarks.intake`.

A CT series of 512 x 512 x 200 slices is made on the spot, three times: uncompressed, RLE, JPEG 2000 (lossless). Each
side gets the folder and ends with one array in memory and its place in space. Ours is what a site does: find out what
lies there, group and order it by geometry, check it, decode it in child processes with limits, rescale. SimpleITK's is
`GetGDCMSeriesFileNames` and its `ImageSeriesReader`. Cold is a fresh process from its start, with imports and children;
warm is the same again in that process, nothing remembered of the folder. Both sides take turns, the files lie in the
page cache for both, and medians are divided. Memory is Linux's high-water mark (`VmHWM`, proc(5)); ours is the sum of
the marks of the process and of all its children, so an upper bound. Both must give the same voxels.
"""

import argparse
import hashlib
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.seeds import generator

TARGET = 1.0  # ours : SimpleITK's, warm, uncompressed
SYNTAXES = {"uncompressed": "ExplicitVRLittleEndian", "RLE": "RLELossless", "JPEG 2000": "JPEG2000Lossless"}
_VOXEL = (0.8, 0.8, 1.5)


class Reading(NamedTuple):
    """What one fresh process has needed.

    Attributes:
        cold: Seconds from the start of the process to the array.
        warm: Seconds of a second reading in it.
        mib: Peak memory of the process and its children, MiB.
        digest: SHA-256 of the voxels, RAS+.
    """

    cold: float
    warm: float
    mib: float
    digest: str


def make(folder: Path, side: int, slices: int, syntax: str) -> None:
    """Write the series: a body with soft edges in air, noise as of a CT."""
    from simulations import dicom_series

    rng = generator(1, "intake")
    x, y = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    body = 1 / (1 + np.exp(-30 * (0.8 - np.hypot(x, 1.3 * y))))
    array = np.empty((side, side, slices), np.int16)
    for z in range(slices):
        array[:, :, z] = -1000 + body * (1040 + 200 * np.sin(4 * x + z / 20)) + rng.normal(0, 12, (side, side))
    affine = np.diag([-_VOXEL[0], -_VOXEL[1], _VOXEL[2], 1])
    how = dicom_series.Acquisition("CT", getattr(importlib.import_module("pydicom.uid"), SYNTAXES[syntax]), offset=8192)
    dicom_series.write_series(array, affine, folder, "intake", how)


def ours(folder: Path) -> NDArray[Any]:
    """A site's way: scan the folder, read its one volume; `(X, Y, Z)` in RAS+ order."""
    from client.data.dicom.scan import scan
    from client.data.readers import read

    (stack,), _, _ = scan(folder)
    array: NDArray[Any] = read(stack).array[0]
    return array


def simpleitk(folder: Path) -> NDArray[Any]:
    """SimpleITK's way; `(X, Y, Z)` in RAS+ order."""
    sitk = importlib.import_module("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    signs = np.diag(np.reshape(image.GetDirection(), (3, 3))) * [-1, -1, 1]
    array: NDArray[Any] = sitk.GetArrayFromImage(image).T[tuple(slice(None, None, int(s)) for s in signs)]
    return array


SIDES: dict[str, Callable[[Path], NDArray[Any]]] = {"fedscan": ours, "SimpleITK": simpleitk}


def child(side: str, folder: Path) -> None:
    """Read twice, looking at every voxel; say when each is done, and last what the voxels were."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        array = SIDES[side](folder)
        int(array.sum(dtype=np.int64))
        seconds.append(time.perf_counter() - start)
        print(seconds[-1], flush=True)
        if len(seconds) < 2:
            del array
    sys.stdin.readline()  # The parent looks at our memory and that of our children before more is needed.
    print(hashlib.sha256(np.ascontiguousarray(array, dtype="<i4").tobytes()).hexdigest(), flush=True)


def measure(side: str, folder: Path) -> Reading:
    """One fresh process of one side."""
    start = time.perf_counter()
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--child", side, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
    with process:
        if process.stdin is None or process.stdout is None or not process.stdout.readline():
            raise RuntimeError(f"{side} could not read the series")
        cold = time.perf_counter() - start
        warm = float(process.stdout.readline())
        memory = sum(_peak(pid) for pid in _family(process.pid))
        process.stdin.write("\n")
        process.stdin.flush()
        digest = process.stdout.readline().strip()
    return Reading(cold, warm, memory / 2**20, digest)


def _family(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(p for task in tasks for c in task.read_text("ascii").split() for p in _family(int(c)))]


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def compare(folder: Path, repeats: int) -> dict[str, Any]:
    """Medians of both sides and their ratios for the series in `folder`."""
    readings: dict[str, list[Reading]] = {side: [] for side in SIDES}
    for turn in range(repeats):
        for side in list(SIDES)[:: 1 if turn % 2 == 0 else -1]:
            readings[side].append(measure(side, folder))
    medians = {
        side: {what: round(statistics.median(getattr(r, what) for r in rs), 3) for what in ("cold", "warm", "mib")}
        for side, rs in readings.items()
    }
    mine, theirs = medians.values()
    return {
        "same_voxels": len({r.digest for rs in readings.values() for r in rs}) == 1,
        **{side: {"seconds_cold": m["cold"], "seconds_warm": m["warm"], "peak_mib": m["mib"]}
           for side, m in medians.items()},
        "ratio_cold": round(mine["cold"] / theirs["cold"], 2),
        "ratio_warm": round(mine["warm"] / theirs["warm"], 2),
        "ratio_memory": round(mine["mib"] / theirs["mib"], 2),
    }  # fmt: skip


def main() -> int:
    """Measure and print as JSON; 0 if the voxels agree and the target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--syntax", choices=list(SYNTAXES), action="append", help="only this one (may be repeated)")
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]))
        return 0
    rows = {}
    for syntax in given.syntax or SYNTAXES:
        with TemporaryDirectory() as folder:
            make(Path(folder), given.side, given.slices, syntax)
            rows[syntax] = compare(Path(folder), given.repeats)
    met = (
        all(row["same_voxels"] for row in rows.values()) and rows.get("uncompressed", {}).get("ratio_warm", 0) <= TARGET
    )
    print(json.dumps({"voxels": [given.side, given.side, given.slices], "series": rows, "target_met": met}, indent=1))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
