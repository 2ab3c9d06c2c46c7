"""Stored values become values: the expected ones are the arrays that were written, changed by numpy."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from client.data.dicom.reading import read_stack
from client.data.dicom.scan import scan
from client.data.readers import read
from common.errors import DataError
from tests.client.data.dicom.series import data_sets, smooth, write


def values_of(folder: Path) -> NDArray[np.generic]:
    """The one volume of `folder` as (slices, rows, columns), as it was written."""
    (stack,), _, findings = scan(folder)
    assert [f for f in findings if f.severity == "error"] == []
    volume = read_stack(stack)
    # Written with rows and columns along L and P: both run backwards in RAS+.
    return volume.array[0].transpose(2, 1, 0)[:, ::-1, ::-1]


def test_slope_and_intercept_of_each_slice(tmp_path: Path) -> None:
    array = smooth((6, 12, 10))

    def change(number: int, data: Dataset) -> None:
        data.RescaleSlope, data.RescaleIntercept = 1 + number, -10 * number

    write(data_sets(array, change=change), tmp_path)
    number = np.arange(6)[:, None, None]
    assert np.array_equal(values_of(tmp_path), array.astype(int) * (1 + number) - 10 * number)


def test_fractional_slopes_of_pet(tmp_path: Path) -> None:
    array = smooth((5, 12, 10), 0, 30000)
    slopes = [0.1, 0.73, 1.9, 0.0031, 12.25]

    def change(number: int, data: Dataset) -> None:
        data.RescaleSlope = slopes[number]

    write(data_sets(array, modality="PT", change=change), tmp_path)
    expected = (array.astype(np.float64) * np.array(slopes)[:, None, None]).astype(np.float32)
    assert np.array_equal(values_of(tmp_path), expected)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("kind", ["<i2", "<u2", "<u1", "<i4", "<u4"])
def test_types_and_byte_orders(tmp_path: Path, syntax: str, kind: str) -> None:
    array = smooth((4, 9, 11), 0, 120).astype(kind)
    if np.dtype(kind).itemsize > 1:
        array[0, 0, 0] = np.iinfo(kind).max if kind != "<u4" else 2**24
    stored = array if syntax == ImplicitVRLittleEndian else array.astype(array.dtype.newbyteorder(">"))
    sets = data_sets(stored, syntax=syntax)
    for data in sets:
        if kind == "<u1" and syntax == ExplicitVRBigEndian:
            data["PixelData"].VR = "OB"
    write(sets, tmp_path)
    assert np.array_equal(values_of(tmp_path), array.astype(np.float32 if kind in ("<u4", "<i4") else array.dtype))


def test_bytes_stored_as_big_endian_words(tmp_path: Path) -> None:
    # PS3.5 A.3: with OW, pairs of 8-bit pixels are swapped.
    array = smooth((3, 10, 12), 0, 250).astype(np.uint8)
    swapped = array.view(">u2").astype("<u2").view(np.uint8).reshape(array.shape)
    sets = data_sets(swapped, syntax=ExplicitVRBigEndian)
    for data in sets:
        data["PixelData"].VR = "OW"
    write(sets, tmp_path)
    # pydicom writes OW as it is given; its own reader is the oracle that our swap is the standard's.
    assert np.array_equal(values_of(tmp_path), array)


@pytest.mark.parametrize(("high", "signed"), [(11, False), (11, True), (15, False), (13, True)])
def test_only_stored_bits_count(tmp_path: Path, high: int, signed: bool) -> None:
    low = -2000 if signed else 0
    array = smooth((4, 9, 8), low, 2000)
    shifted = (array.astype(np.int32) & 0xFFF) << (high - 11)
    dirt = np.random.default_rng(0).integers(0, 1 << 16, array.shape) & ~(0xFFF << (high - 11))
    stored = (shifted | dirt).astype(np.uint16)

    def change(number: int, data: Dataset) -> None:
        data.BitsStored, data.HighBit, data.PixelRepresentation = 12, high, int(signed)

    write(data_sets(stored, change=change), tmp_path)
    assert np.array_equal(values_of(tmp_path), array)


def test_padding_of_ct_takes_the_smallest_real_value(tmp_path: Path) -> None:
    array = smooth((4, 9, 8), -900, 1500)
    array[:, :2] = -2000
    array[1, 4, 4] = -1990

    def change(number: int, data: Dataset) -> None:
        data.add_new(0x00280120, "SS", -2000)
        data.add_new(0x00280121, "SS", -1990)
        data.RescaleIntercept = -24

    write(data_sets(array, change=change), tmp_path)
    real = array > -1990
    assert np.array_equal(values_of(tmp_path), np.where(real, array - 24, array[real].min() - 24))


def test_padding_of_mr_is_its_background(tmp_path: Path) -> None:
    array = smooth((4, 9, 8), 0, 1500)

    def change(number: int, data: Dataset) -> None:
        data.add_new(0x00280120, "SS", 0)

    write(data_sets(array, modality="MR", change=change), tmp_path)
    assert np.array_equal(values_of(tmp_path), array)


@pytest.mark.parametrize("signed", [False, True])
def test_projections_in_monochrome1_are_inverted(tmp_path: Path, signed: bool) -> None:
    array = smooth((1, 9, 8), -2000 if signed else 0, 2000).astype(np.int16 if signed else np.uint16)

    def change(number: int, data: Dataset) -> None:
        data.PhotometricInterpretation = "MONOCHROME1"
        data.BitsStored, data.HighBit = 12, 11

    write(data_sets(array, modality="MG", change=change), tmp_path)
    volume = read(tmp_path)
    assert volume.array.shape == (1, 9, 8)
    assert np.array_equal(volume.array, (-1 if signed else 4095) - array.astype(int))
    assert volume.spacing == (0.75, 0.5)


def test_slices_in_monochrome1_are_measurements(tmp_path: Path) -> None:
    array = smooth((4, 9, 8))

    def change(number: int, data: Dataset) -> None:
        data.PhotometricInterpretation = "MONOCHROME1"

    write(data_sets(array, modality="MR", change=change), tmp_path)
    assert np.array_equal(values_of(tmp_path), array)


def test_a_window_is_never_applied(tmp_path: Path) -> None:
    array = smooth((4, 9, 8))

    def change(number: int, data: Dataset) -> None:
        data.WindowCenter, data.WindowWidth = [40, 300], [80, 600]

    write(data_sets(array, change=change), tmp_path)
    assert np.array_equal(values_of(tmp_path), array)


def test_modality_lookup_table(tmp_path: Path) -> None:
    array = smooth((1, 9, 8), 0, 255).astype(np.uint8)
    table = (np.arange(256) * 17 + 3).astype(np.uint16)

    def change(number: int, data: Dataset) -> None:
        del data.RescaleSlope, data.RescaleIntercept
        lut = Dataset()
        lut.LUTDescriptor = [256, 0, 16]
        lut["LUTDescriptor"].VR = "US"
        lut.ModalityLUTType = "US"
        lut.add_new(0x00283006, "OW", table.tobytes())
        data.ModalityLUTSequence = Sequence([lut])

    write(data_sets(array, modality="CR", change=change), tmp_path)
    assert np.array_equal(read(tmp_path).array, table[array])


def test_floating_point_pixels(tmp_path: Path) -> None:
    array = smooth((4, 9, 8)).astype(np.float32) / 7

    def change(number: int, data: Dataset) -> None:
        del data.PixelData
        data.FloatPixelData = array[number].tobytes()

    write(data_sets(array.astype("<i4"), modality="MR", change=change), tmp_path)
    assert np.array_equal(values_of(tmp_path), array)


def test_a_file_that_changed_after_the_scan_is_refused(tmp_path: Path) -> None:
    paths = write(data_sets(smooth((4, 9, 8))), tmp_path)
    (stack,), _, _ = scan(tmp_path)
    with paths[2].open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(DataError, match="has changed since it was listed"):
        read_stack(stack)
    paths[1].unlink()
    with pytest.raises(DataError):
        read_stack(stack)


def test_a_folder_with_two_volumes_is_not_guessed(tmp_path: Path) -> None:
    write(data_sets(smooth((4, 9, 8))), tmp_path / "a")
    write(data_sets(smooth((5, 9, 8))), tmp_path / "b")
    assert read(tmp_path / "b").array.shape == (1, 8, 9, 5)
    with pytest.raises(DataError, match="holds 2 DICOM volumes"):
        read(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no DICOM volume"):
        read(tmp_path / "none")


@pytest.mark.parametrize(("top", "kind"), [(3000, np.int16), (32767, np.int16), (-32000, np.int32)])
def test_ct_is_kept_in_16_bits_where_it_fits(tmp_path: Path, top: int, kind: type) -> None:
    array = smooth((4, 9, 8))
    array[3, 4, 4] = top

    def change(number: int, data: Dataset) -> None:
        data.RescaleIntercept = -1024

    write(data_sets(array, change=change), tmp_path)
    values = values_of(tmp_path)
    assert values.dtype == kind
    assert np.array_equal(values, array.astype(int) - 1024)
