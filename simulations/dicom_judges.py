"""Others by which our reading of DICOM is judged: SimpleITK, dcm2niix, highdicom, dcmqi, rt-utils, Matplotlib.

They are no part of the product: the extra `dev` installs them.
"""

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

_EDGE = 0.01  # pixels; contours come as decimals
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Judged(NamedTuple):
    """What a judge has read, turned to the nearest RAS+ order.

    Attributes:
        array: `(X, Y, Z)`.
        affine: `(4, 4)` voxel index -> RAS+ mm.
    """

    array: NDArray[np.generic]
    affine: NDArray[np.float64]


def canonical(array: NDArray[np.generic], affine: NDArray[np.float64]) -> Judged:
    """A volume `(i, j, k)` with its axes turned to the nearest RAS+ order by nibabel."""
    code = np.arange(array.size).reshape(array.shape)
    image = nibabel.Nifti1Image(code.astype(np.int64), affine, dtype=np.int64)  # type: ignore[no-untyped-call]
    turned = nibabel.as_closest_canonical(image)  # type: ignore[no-untyped-call]
    return Judged(array.ravel()[np.asarray(turned.dataobj)], np.asarray(turned.affine, np.float64))


def by_simpleitk(files: Sequence[Path]) -> Judged:
    """The volume of the files of one series, in the order that GDCM finds."""
    sitk: Any = importlib.import_module("SimpleITK")
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            (Path(folder) / f"{number}.dcm").symlink_to(file.resolve())
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
        image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return canonical(sitk.GetArrayFromImage(image).T, _TO_RAS @ affine)


def by_dcm2niix(files: Sequence[Path]) -> list[Judged]:
    """All volumes of these files, as dcm2niix groups them."""
    tool = Path(sys.executable).parent / "dcm2niix"
    with tempfile.TemporaryDirectory() as given, tempfile.TemporaryDirectory() as made:
        for number, file in enumerate(files):
            (Path(given) / f"{number}.dcm").symlink_to(file.resolve())
        command = [str(tool), "-o", made, "-f", "%s_%d", "-w", "1", "-b", "n", "-m", "n", given]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - a program of our own environment
        volumes = []
        for file in sorted(Path(made).glob("*.nii*")):
            image: Any = nibabel.load(file)
            array = np.asarray(image.dataobj)
            array = array.reshape(*array.shape[:3], -1)
            volumes += [canonical(array[..., n], np.asarray(image.affine)) for n in range(array.shape[3])]
    return volumes


def by_highdicom_image(file: Path) -> Judged:
    """The volume of one enhanced multi-frame file."""
    volume = importlib.import_module("highdicom").imread(file).get_volume()
    return canonical(volume.array, _TO_RAS @ volume.affine)


def by_highdicom(file: Path) -> dict[int, Judged]:
    """Each segment of a segmentation, on the grid of its frames."""
    seg = importlib.import_module("highdicom").seg.segread(file)
    found = {}
    for number in seg.segment_numbers:
        volume = seg.get_volume(
            segment_numbers=[number], combine_segments=True, relabel=True, allow_missing_positions=True
        )
        found[int(number)] = canonical(volume.array, _TO_RAS @ volume.affine)
    return found


def by_dcmqi(file: Path) -> list[Judged]:
    """Each segment of a segmentation."""
    tool = Path(sys.executable).parent / "segimage2itkimage"
    with tempfile.TemporaryDirectory() as made:
        command = [str(tool), "--inputDICOM", str(file), "--outputDirectory", made, "--outputType", "nii"]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - a program of our own environment
        names = sorted(Path(made).glob("*.nii*"), key=lambda f: int(f.name.split(".")[0]))
        images: list[Any] = [nibabel.load(name) for name in names]
        return [canonical(np.asarray(i.dataobj), np.asarray(i.affine)) for i in images]


def by_rt_utils(series: Sequence[Path], file: Path) -> dict[str, Judged]:
    """Each outline of a structure set that rt-utils can draw; it moves their points to whole pixels."""
    rt_utils = importlib.import_module("rt_utils")
    with tempfile.TemporaryDirectory() as folder:
        for number, slice_ in enumerate(series):
            (Path(folder) / f"{number}.dcm").symlink_to(slice_.resolve())
        builder = rt_utils.RTStructBuilder.create_from(folder, str(file), warn_only=True)
        masks = {str(name): np.asarray(builder.get_roi_mask_by_name(name)) for name in builder.get_roi_names()}
        affine = _grid(builder.series_data)
    # Its masks are (rows, columns, slices).
    return {name: canonical(mask.transpose(1, 0, 2), _TO_RAS @ affine) for name, mask in masks.items()}


def by_polygons(series: Sequence[Path], file: Path) -> dict[str, tuple[Judged, Judged]]:
    """Each outline of a structure set as Matplotlib fills polygons, and the pixels whose centres lie on an edge.

    Contours of a slice are combined by exclusive or; a contour belongs to the nearest slice. To which side a centre on
    an edge belongs is nowhere defined, so such pixels are given apart.
    """
    slices = [dcmread(path, stop_before_pixels=True) for path in series]
    normal = np.cross(*np.reshape(np.array(slices[0].ImageOrientationPatient, float), (2, 3)))
    slices.sort(key=lambda s: float(normal @ np.array(s.ImagePositionPatient, float)))
    affine, data = _grid(slices), dcmread(file)
    shape = (int(slices[0].Columns), int(slices[0].Rows), len(slices))
    names = {int(roi.ROINumber): str(roi.ROIName).strip() for roi in data.StructureSetROISequence}
    found = {}
    for roi in data.ROIContourSequence:
        mask, edge = np.zeros(shape, bool), np.zeros(shape, bool)
        for contour in roi.get("ContourSequence", None) or ():
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            index = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
            z = round(float(index[:, 2].mean()))
            if contour.ContourGeometricType == "CLOSED_PLANAR" and len(points) > 2 and 0 <= z < shape[2]:
                inside, on = _polygon(index[:, :2], shape[:2])
                mask[:, :, z] ^= inside
                edge[:, :, z] |= on
        both = (canonical(mask, _TO_RAS @ affine), canonical(edge, _TO_RAS @ affine))
        found[names[int(roi.ReferencedROINumber)]] = both
    return found


def _polygon(line: NDArray[np.float64], shape: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The centres inside a polygon, and those nearer than `_EDGE` to one of its edges."""
    path: Any = importlib.import_module("matplotlib.path")
    centres = np.argwhere(np.ones(shape, bool)).astype(float)
    inside = path.Path(np.vstack([line, line[:1]]), closed=True).contains_points(centres)
    near = np.zeros(len(centres), bool)
    for start, end in zip(line, np.roll(line, -1, axis=0), strict=True):
        along = end - start
        beside = np.flatnonzero(
            ((centres >= np.minimum(start, end) - 1) & (centres <= np.maximum(start, end) + 1)).all(axis=1)
        )
        share = np.clip((centres[beside] - start) @ along / max(float(along @ along), 1e-12), 0, 1)
        distance = np.linalg.norm(centres[beside] - start - share[:, np.newaxis] * along, axis=1)
        near[beside[distance <= _EDGE]] = True
    return inside.reshape(shape), near.reshape(shape)


def padding_of(file: Path) -> float | None:
    """The value, rescaled, by which a file says "no pixel here"."""
    data = dcmread(file, stop_before_pixels=True)
    if "PixelPaddingValue" not in data:
        return None
    return float(data.PixelPaddingValue) * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))


def _grid(slices: Sequence[Any]) -> NDArray[np.float64]:
    """The affine, LPS+, of single-frame data sets in the order of their slices."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    directions = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    spacing = [float(v) for v in first.PixelSpacing]
    affine[:3, 0], affine[:3, 1] = directions[0] * spacing[1], directions[1] * spacing[0]
    affine[:3, 3] = np.array(first.ImagePositionPatient, float)
    apart = (np.array(last.ImagePositionPatient, float) - affine[:3, 3]) / max(len(slices) - 1, 1)
    affine[:3, 2] = apart if len(slices) > 1 else np.cross(*directions)
    return affine


def dice(mask: NDArray[np.bool_], affine: NDArray[np.float64], judged: Judged, apart: Judged | None = None) -> float:
    """Overlap of our mask on our grid and a judge's, put there by position; 1 for two empty ones.

    Args:
        mask: `(X, Y, Z)`.
        affine: Of the mask.
        judged: The judge's mask.
        apart: Voxels that do not count.
    """
    other = _put(judged, mask.shape, affine)
    if apart is not None:
        counted = ~_put(apart, mask.shape, affine)
        mask, other = mask & counted, other & counted
    total = int(mask.sum()) + int(other.sum())
    return 1.0 if not total else 2 * int((mask & other).sum()) / total


def _put(judged: Judged, shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A judge's mask on the grid of `affine`; what lies outside is lost."""
    points = np.argwhere(judged.array) @ judged.affine[:3, :3].T + judged.affine[:3, 3]
    inverse = np.linalg.inv(affine)
    index = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = np.all((index >= 0) & (index < shape), axis=1)
    out = np.zeros(shape, bool)
    out[tuple(index[inside].T)] = True
    return out
