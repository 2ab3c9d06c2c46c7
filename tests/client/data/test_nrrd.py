"""NRRD images and label maps against SimpleITK, which has its own reader and writer of the format."""

from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from client.data.readers import nrrd as reader
from client.data.readers import read
from common.errors import DataError

TURNED = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def written(path: Path, compress: bool, direction: np.ndarray = TURNED) -> sitk.Image:
    array = np.random.default_rng(1).integers(-1000, 3000, (5, 6, 7)).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((10.5, -20.25, 30.0))
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=compress)
    return image


def assert_same_points(path: Path, image: sitk.Image) -> None:
    """Every voxel has the place and the value that SimpleITK says, whose places are LPS."""
    volume = read(path)
    assert volume.array.shape[0] == 1
    for index in ((0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (3, 2, 1), (6, 5, 4)):
        place = np.array([*image.TransformIndexToPhysicalPoint(index), 1.0]) * [-1, -1, 1, 1]
        own = np.linalg.inv(volume.affine) @ place
        np.testing.assert_allclose(own, np.rint(own), atol=1e-4)
        assert volume.array[(0, *np.rint(own[:3]).astype(int))] == image[index]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("direction", [TURNED, np.diag([-1.0, 1.0, -1.0]), np.eye(3)[[2, 0, 1]]])
def test_places_and_values_are_those_of_simpleitk(tmp_path: Path, compress: bool, direction: np.ndarray) -> None:
    path = tmp_path / "scan.nrrd"
    assert_same_points(path, written(path, compress, direction))


@pytest.mark.parametrize("compress", [False, True])
def test_a_detached_header_reads_the_file_beside_it(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "scan.nhdr"
    image = written(path, compress)
    assert len(list(tmp_path.iterdir())) == 2
    assert_same_points(path, image)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize(("space", "signs"), [("RAS", (1, 1)), ("left-anterior-superior", (-1, 1)), ("LPS", (-1, -1))])
def test_encodings_and_spaces(tmp_path: Path, encoding: str, space: str, signs: tuple[int, int]) -> None:
    array = np.arange(24, dtype=">u2").reshape(2, 3, 4)
    header = {"space": space, "space directions": np.diag([1.0, 2.0, 3.0]), "space origin": [5.0, 6.0, 7.0],
              "encoding": encoding, "endian": "big"}  # fmt: skip
    nrrd.write(str(tmp_path / "a.nrrd"), array, header)
    volume = read(tmp_path / "a.nrrd")
    expected = array[:: signs[0], :: signs[1]]
    np.testing.assert_array_equal(volume.array[0], expected)
    np.testing.assert_allclose(np.diag(volume.affine), [1, 2, 3, 1])
    origin = [5.0 if signs[0] > 0 else -5 - 1, 6.0 if signs[1] > 0 else -6 - 4, 7.0]
    np.testing.assert_allclose(volume.affine[:3, 3], origin)


def test_a_list_axis_becomes_channels(tmp_path: Path) -> None:
    array = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    header = {"space": "RAS", "space directions": np.vstack([np.full(3, np.nan), np.eye(3)]),
              "space origin": [0.0, 0.0, 0.0], "kinds": ["list", "domain", "domain", "domain"]}  # fmt: skip
    nrrd.write(str(tmp_path / "a.nrrd"), array, header)
    np.testing.assert_array_equal(read(tmp_path / "a.nrrd").array, array)


HEADER = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 2 2 2
space directions: (1,0,0) (0,1,0) (0,0,1)
endian: little
encoding: raw
space origin: (0,0,0)
"""


def changed(old: str, new: str) -> str:
    assert old in HEADER
    return HEADER.replace(old, new)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (changed("sizes: 2 2 2", "sizes: 100000 100000 100000"), "can be read"),
        (changed("sizes: 2 2 2", "sizes: 2 2 -2"), "can be read"),
        (changed("sizes: 2 2 2", "sizes: 2 2 9"), "damaged"),
        (changed("encoding: raw", "encoding: gzip"), "damaged"),
        (changed("encoding: raw", "encoding: hex"), "damaged"),
        (changed("space: left-posterior-superior\n", ""), "does not say where left"),
        (changed("space: left-posterior-superior", "space: scanner-xyz"), "does not say where left"),
        (changed("type: short", "type: block"), "not real numbers"),
        (changed("(1,0,0) (0,1,0)", "(1,0,0) (1,0,0)"), "orientation cannot be used"),
        (changed("endian: little\n", ""), "damaged"),
        (HEADER + 'space units: "m" "m" "m"\n', "Save it in mm"),
        (HEADER + "data file: /etc/hostname\n", "not in one file beside it"),
        (HEADER + "data file: ../other.raw\n", "not in one file beside it"),
        (HEADER + "data file: link.raw\n", "not in one file beside it"),
        (HEADER + "data file: slice%03d.raw 1 3 1\n", "not in one file beside it"),
        (HEADER + "data file: LIST\nscan.raw\n", "damaged"),
        ("NRRD0004\n" + "x" * 5_000_000, "damaged"),
        ("no such format\n", "damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "elsewhere.raw").write_bytes(bytes(16))
    (tmp_path / "link.raw").symlink_to(tmp_path / "elsewhere.raw")
    (tmp_path / "a.nrrd").write_bytes(header.encode() + b"\n" + bytes(16))
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.nrrd")


@pytest.mark.parametrize(("module", "encoding"), [("gzip", "gzip"), ("bz2", "bzip2")])
def test_a_small_file_does_not_grow_into_a_large_one(tmp_path: Path, module: str, encoding: str) -> None:
    import importlib
    import tracemalloc

    packed = importlib.import_module(module).compress(bytes(2**27))
    header = changed("encoding: raw", f"encoding: {encoding}")
    (tmp_path / "a.nrrd").write_bytes(header.encode() + b"\n" + packed)
    tracemalloc.start()
    assert read(tmp_path / "a.nrrd").array.shape == (1, 2, 2, 2)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_bytes_before_the_data_are_skipped(tmp_path: Path) -> None:
    data = np.arange(8, dtype="<i2").tobytes()
    for name, extra, body in (
        ("end", "byte skip: -1\n", b"garbage" + data),
        ("bytes", "byte skip: 7\n", b"garbage" + data),
        ("lines", "line skip: 2\n", b"one\ntwo\n" + data),
    ):
        (tmp_path / f"{name}.nrrd").write_bytes((HEADER + extra).encode() + b"\n" + body)
        stored = reader.open_nrrd(tmp_path / f"{name}.nrrd")
        np.testing.assert_array_equal(stored.array.ravel(order="F"), np.arange(8))


@pytest.mark.data
def test_real_masks_are_those_of_simpleitk(fedscan_data: Path) -> None:
    folder = fedscan_data / "dicom-seg-rtstruct-small"
    paths = sorted(folder.rglob("*.nrrd"))
    assert len(paths) == 6
    for path in paths:
        volume = read(path, label=True)
        image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")
        np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image).T)
        own = volume.affine @ [1, 2, 0, 1]
        np.testing.assert_allclose(own[:3] * [-1, -1, 1], image.TransformIndexToPhysicalPoint((1, 2, 0)), atol=1e-4)
