"""Readers against SimpleITK (ITK's own NIfTI reader), NumPy's arrays, and damaged files."""

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from client.data.readers import READERS, image2d, nifti, read, stem, suffix
from common.errors import DataError

ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*axes)
]
# A rotation of 20 degrees about z: the nearest axes stay the same.
TILTED = np.array([[np.cos(0.35), -np.sin(0.35), 0], [np.sin(0.35), np.cos(0.35), 0], [0, 0, 1]])


def affine_of(codes: str, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Voxel-to-RAS affine of an image stored in the axis directions `codes`."""
    affine = np.eye(4)
    columns = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(codes)), (1, 1, 1))
    affine[:3, :3] = TILTED @ np.linalg.inv(columns[:3, :3]) @ np.diag(spacing)
    affine[:3, 3] = (-11.5, 7.25, 30)
    return affine


def write(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] | None = None) -> Path:
    image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
    image.set_qform(image.affine, 1)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_lies_where_itk_says(codes: str, tmp_path: Path) -> None:
    stored = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    path = write(tmp_path / "scan.nii.gz", stored, affine_of(codes, (0.5, 1.25, 3)))
    volume = read(path)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    itk = SimpleITK.ReadImage(str(path))
    for index in np.ndindex(*volume.array.shape[1:]):
        x, y, z = (volume.affine @ (*index, 1))[:3]
        # ITK counts millimetres towards left and posterior.
        there = itk.TransformPhysicalPointToIndex((-x, -y, z))
        assert volume.array[0][index] == itk.GetPixel(there)


def test_channels_come_first_and_slope_is_applied(tmp_path: Path) -> None:
    stored = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    image = nib.Nifti1Image(stored, np.diag([-1.0, 1, 1, 1]))
    image.header.set_slope_inter(2.0, -1024.0)
    path = tmp_path / "scan.nii"
    # nibabel divides by the slope when it saves an array, so the header is written beside the raw numbers.
    image.header.set_data_offset(352)
    path.write_bytes(image.header.binaryblock + b"\0" * 4 + stored.tobytes(order="F"))
    volume = read(path)
    assert volume.array.shape == (5, 2, 3, 4)
    np.testing.assert_array_equal(volume.array[4], stored[::-1, :, :, 4] * 2.0 - 1024)
    # NIfTI's standard puts vectors on the fifth axis; ITK reads those as components.
    vectors = write(tmp_path / "vector.nii", stored[:, :, :, np.newaxis, :])
    assert read(vectors).array.shape == (5, 2, 3, 4)


def test_nifti2_and_names_that_lie_about_compression(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    nib.save(nib.Nifti2Image(array, np.eye(4)), tmp_path / "two.nii")
    np.testing.assert_array_equal(read(tmp_path / "two.nii").array[0], array)
    plain = write(tmp_path / "plain.nii", array)
    (tmp_path / "lie.nii.gz").write_bytes(plain.read_bytes())
    (tmp_path / "zipped.nii").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("lie.nii.gz", "zipped.nii"):
        np.testing.assert_array_equal(read(tmp_path / name).array[0], array)


def test_a_flat_nifti_is_a_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "flat.nii", np.arange(6, dtype=np.uint8).reshape(2, 3), np.diag([0.2, 0.3, 1, 1]))
    volume = read(path)
    assert volume.array.shape == (1, 2, 3)
    assert volume.spacing == pytest.approx((0.2, 0.3))


def test_damaged_nifti_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.nii.gz", np.random.default_rng(1).integers(0, 999, (9, 9, 9), dtype=np.int16))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # inside gzip's checksum: every voxel decodes, but not to what was written
    plain = gzip.decompress(whole)
    bad = {"cut": whole[: len(whole) // 2], "checksum": bytes(flipped), "cutplain": plain[:900], "empty": b"",
           "text": b"not a scan at all"}  # fmt: skip
    for name, content in bad.items():
        file = tmp_path / f"{name}.nii.gz"
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.nii.gz: damaged.*again"):
            read(file)


def test_nifti_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = write(tmp_path / "scan.nii", np.zeros((8, 8, 8), np.uint8))
    monkeypatch.setattr(nifti, "MAX_VALUES", 511)
    with pytest.raises(DataError, match="512 values"):
        read(scan)
    monkeypatch.undo()
    with pytest.raises(DataError, match="complex64"):
        read(write(tmp_path / "complex.nii", np.zeros((2, 2, 2), np.complex64)))
    with pytest.raises(DataError, match="5 dimensions"):
        read(write(tmp_path / "five.nii", np.zeros((2, 2, 2, 3, 2), np.uint8)))
    flat = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), None)
    flat.header["sform_code"] = 1
    flat.header.set_data_offset(352)
    (tmp_path / "nowhere.nii").write_bytes(flat.header.binaryblock + b"\0" * 12)
    with pytest.raises(DataError, match="orientation cannot be used"):
        read(tmp_path / "nowhere.nii")


def test_names_without_a_reader(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown file format; known are \.nii"):
        read(tmp_path / "scan.xyz")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "scan.nii.gz")
    assert suffix(Path("a/B.NII.GZ")) == ".nii.gz"
    assert stem(Path("a/case.1.nii.gz")) == "case.1"
    assert suffix(Path(".nii")) is None
    assert stem(Path("a/case.seg.nrrd")) == "case"
    pictures = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
    assert set(READERS) == {".nii", ".nii.gz", ".nrrd", ".nhdr", ".seg.nrrd"} | pictures


GREY8 = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR8 = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("array", [GREY8, GREY8.astype(np.uint16) * 5000, COLOUR8], ids=["grey8", "grey16", "rgb8"])
def test_pictures_keep_every_number(array: NDArray[np.generic], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"p.{ending}"
    Image.fromarray(array).save(path)
    expected = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[np.newaxis]
    np.testing.assert_array_equal(read(path).array, expected)
    assert read(path).spacing == (1, 1)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colour_tiff(planar: str, tmp_path: Path) -> None:
    array = COLOUR8.astype(np.uint16) * 1500
    stored = array if planar == "contig" else np.ascontiguousarray(np.moveaxis(array, -1, 0))
    tifffile.imwrite(tmp_path / "c.tif", stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read(tmp_path / "c.tif").array, np.moveaxis(array, -1, 0))


def test_palette_is_colour_in_an_image_and_number_in_a_label(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([0, 0, 0, 255, 10, 20, 7, 8, 9])
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read(tmp_path / "p.png", label=True).array, [[[0, 1], [2, 1]]])
    np.testing.assert_array_equal(read(tmp_path / "p.png").array[:, 0, 1], [255, 10, 20])


def test_bits_and_alpha(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "bits.png")
    read_bits = read(tmp_path / "bits.png").array
    assert read_bits.dtype == np.uint8
    np.testing.assert_array_equal(read_bits[0], bits)
    opaque = np.dstack([COLOUR8, np.full((3, 4), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read(tmp_path / "opaque.png").array, np.moveaxis(COLOUR8, -1, 0))
    opaque[0, 0, 3] = 128
    Image.fromarray(opaque).save(tmp_path / "glass.png")
    with pytest.raises(DataError, match="see-through"):
        read(tmp_path / "glass.png")


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Exif 2.32, tag Orientation: row 0 is the right side, so show it turned clockwise by 90 degrees
    Image.fromarray(GREY8).save(tmp_path / "p.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "p.png").array[0], np.rot90(GREY8, -1))


def test_pictures_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (30, 30), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "p.png")
    whole = (tmp_path / "p.png").read_bytes()
    for name, content in {"cut.png": whole[:400], "text.png": b"hello", "empty.tif": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: damaged"):
            read(tmp_path / name)
    pages = [Image.fromarray(GREY8)] * 2
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="several pages"):
        read(tmp_path / "pages.tif")
    monkeypatch.setattr(image2d, "MAX_PIXELS", 899)
    with pytest.raises(DataError, match="more than 899 pixels"):
        read(tmp_path / "p.png")


def _samples(folder: Path) -> dict[str, bytes]:
    write(folder / "s.nii", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    write(folder / "s.nii.gz", np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    for name, packed in (("s.nrrd", False), ("z.nrrd", True)):
        scan = SimpleITK.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
        SimpleITK.WriteImage(scan, str(folder / name), useCompression=packed)
    Image.fromarray(COLOUR8).save(folder / "s.png")
    Image.fromarray(COLOUR8).save(folder / "s.jpg")
    Image.fromarray(GREY8).save(folder / "s.tif")
    tifffile.imwrite(folder / "c.tif", COLOUR8.astype(np.uint16), photometric="rgb")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore")  # Pillow and nibabel warn of odd headers before they read or refuse them
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever bytes are changed or cut: an array of finite size or a DataError, never another exception."""
    folder = tmp_path_factory.mktemp("fuzz", numbered=True)
    samples = _samples(folder)
    name = data.draw(st.sampled_from(sorted(samples)))
    content = bytearray(samples[name])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        volume = read(folder / name)
    except DataError:
        return
    assert volume.array.ndim in (3, 4)
    assert np.isfinite(volume.affine).all()
