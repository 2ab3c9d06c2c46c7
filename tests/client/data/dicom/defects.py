"""Defects of a series: each spoils a good one, writes it, and says what is still to be read."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

from simulations.dicom_series import uid
from tests.client.data.dicom.good import Good, Truth, save

Spoil = Callable[[Good, Path], list[Truth]]


@dataclass(frozen=True)
class Defect:
    """One way in which files are wrong, or look it.

    Attributes:
        spoil: Writes the files into a folder and returns the volumes that are to be read from them.
        codes: Findings or reasons of which one must be given; none for what is right.
        others: How many further volumes may be read: a slice that is unlike the others is a volume of its own.
    """

    spoil: Spoil
    codes: tuple[str, ...] = ()
    others: int = 0


DEFECTS: dict[str, Defect] = {}


def defect(*codes: str, others: int = 0) -> Callable[[Spoil], Spoil]:
    """Enter a function into DEFECTS under its name."""

    def enter(spoil: Spoil) -> Spoil:
        DEFECTS[spoil.__name__.replace("_", "-")] = Defect(spoil, codes, others)
        return spoil

    return enter


def change(good: Good, folder: Path, edit: Callable[[Dataset, int], None]) -> list[Truth]:
    """Save the series after `edit` of every slice."""
    sets = good.sets()
    for index, data in enumerate(sets):
        edit(data, index)
    save(sets, folder)
    return [good.truth]


def set_all(good: Good, folder: Path, **values: object) -> list[Truth]:
    """Save the series with these attributes everywhere; None deletes."""

    def edit(data: Dataset, index: int) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(data, keyword)
            else:
                setattr(data, keyword, value)

    return change(good, folder, edit)


def set_one(good: Good, folder: Path, **values: object) -> list[Truth]:
    """As `set_all`, in the fourth slice alone."""

    def edit(data: Dataset, index: int) -> None:
        for keyword, value in values.items() if index == 3 else ():
            if value is None:
                delattr(data, keyword)
            else:
                setattr(data, keyword, value)

    return change(good, folder, edit)


def patch(folder: Path, old: bytes, new: bytes) -> None:
    """Replace bytes in all files that have them; some must."""
    having = [path for path in folder.glob("*.dcm") if old in path.read_bytes()]
    assert having
    for path in having:
        path.write_bytes(path.read_bytes().replace(old, new))


def renamed(data: Dataset, *parts: object) -> Dataset:
    """Another SOP instance."""
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid("torture", data.SOPInstanceUID, *parts)
    return data


# --- order, presence and place of slices ---


@defect()
def shuffled_names(good: Good, folder: Path) -> list[Truth]:
    save([good.sets()[i] for i in np.random.default_rng(1).permutation(len(good.files))], folder)
    return [good.truth]


@defect()
def instance_numbers_wrong(good: Good, folder: Path) -> list[Truth]:
    return change(good, folder, lambda data, i: setattr(data, "InstanceNumber", (i * 7) % 5))


@defect()
def instance_numbers_absent(good: Good, folder: Path) -> list[Truth]:
    return set_all(good, folder, InstanceNumber=None)


@defect("dicom-missing-slice")
def missing_slice(good: Good, folder: Path) -> list[Truth]:
    sets = good.sets()
    del sets[4]
    save(sets, folder)
    return []


@defect()
def missing_end_slice(good: Good, folder: Path) -> list[Truth]:
    save(good.sets()[1:], folder)
    return [good.truth.slices(slice(1, None))]


@defect("dicom-copies")
def same_file_twice(good: Good, folder: Path) -> list[Truth]:
    sets = good.sets()
    save([*sets, sets[4]], folder)
    return [good.truth]


@defect("dicom-duplicate-slice")
def same_slice_under_two_uids(good: Good, folder: Path) -> list[Truth]:
    """Nothing says which of the two counts."""
    save([*good.sets(), renamed(good.sets()[4])], folder)
    return []


@defect("dicom-duplicate-slice")
def other_pixels_at_one_place(good: Good, folder: Path) -> list[Truth]:
    twin = renamed(good.sets()[4])
    twin.PixelData = good.sets()[6].PixelData
    save([*good.sets(), twin], folder)
    return []


@defect("dicom-same-instance")
def other_pixels_under_one_uid(good: Good, folder: Path) -> list[Truth]:
    twin = good.sets()[4]
    twin.PixelData = good.sets()[6].PixelData
    save([*good.sets(), twin], folder)
    return []


@defect("dicom-gantry-tilt")
def gantry_tilt(good: Good, folder: Path) -> list[Truth]:
    def edit(data: Dataset, index: int) -> None:
        x, y, z = (float(v) for v in data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y + 0.8 * index, z]

    change(good, folder, edit)
    return []


@defect("dicom-uneven-slices")
def one_slice_displaced(good: Good, folder: Path) -> list[Truth]:
    x, y, z = (float(v) for v in good.sets()[3].ImagePositionPatient)
    set_one(good, folder, ImagePositionPatient=[x, y, z + 0.9])
    return []


@defect()
def positions_rounded(good: Good, folder: Path) -> list[Truth]:
    def edit(data: Dataset, index: int) -> None:
        data.ImagePositionPatient = [round(float(v) + 2e-5 * (-1) ** index, 6) for v in data.ImagePositionPatient]

    return change(good, folder, edit)


@defect("dicom-no-position")
def position_absent(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, ImagePositionPatient=None)
    return []


@defect("dicom-no-position")
def position_absent_once(good: Good, folder: Path) -> list[Truth]:
    set_one(good, folder, ImagePositionPatient=None)
    return []


@defect("dicom-header")
def position_of_two_numbers(good: Good, folder: Path) -> list[Truth]:
    set_one(good, folder, ImagePositionPatient=[1.0, 2.0])
    return []


@defect("dicom-no-position")
def orientation_absent(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, ImageOrientationPatient=None)
    return []


@defect("dicom-orientation")
def orientation_of_zeros(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, ImageOrientationPatient=[0, 0, 0, 0, 0, 0])
    return []


@defect("dicom-orientation")
def orientation_not_square(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, ImageOrientationPatient=[1, 0, 0, 0.5, 0.8660254, 0])
    return []


@defect("dicom-mixed-series", others=1)
def mixed_orientations(good: Good, folder: Path) -> list[Truth]:
    set_one(good, folder, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    return []


@defect("dicom-localiser")
def localiser_inside(good: Good, folder: Path) -> list[Truth]:
    """Three views of other directions in the series of the scan."""
    views = good.sets()[:3]
    for data, direction in zip(views, ([0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], [0, 0, -1, 0, 1, 0]), strict=True):
        renamed(data, "view").ImageOrientationPatient = direction
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(views, folder / "views")
    save(good.sets(), folder / "scan")
    return [good.truth]


@defect("dicom-mixed-series", others=1)
def mixed_sizes(good: Good, folder: Path) -> list[Truth]:
    small = good.sets()[3]
    small.Rows //= 2
    set_one(good, folder, Rows=small.Rows, PixelData=small.PixelData[: len(small.PixelData) // 2])
    return []


@defect()
def two_series_in_a_folder(good: Good, folder: Path) -> list[Truth]:
    other = good.sets()
    for data in other:
        renamed(data).SeriesInstanceUID = uid("torture", "other series")
        data.PixelData = other[0].PixelData
    both = [data for pair in zip(good.sets(), other, strict=True) for data in pair]
    save(both, folder)
    same = np.repeat(good.truth.array[:, :, :1], len(other), axis=2)
    return [good.truth, replace(good.truth, array=same)]


def several(good: Good, folder: Path, keyword: str, values: tuple[object, ...]) -> list[Truth]:
    """Volumes at the same places in one series, told apart by one attribute; the later ones run backwards."""
    sets = []
    for number, value in enumerate(values):
        times = good.sets()
        for data, other in zip(times, good.sets()[:: 1 if number % 2 == 0 else -1], strict=True):
            setattr(renamed(data, number), keyword, value)
            data.PixelData = other.PixelData
        sets += times
    save(sets, folder)
    return [replace(good.truth, array=good.truth.array[:, :, :: 1 if n % 2 == 0 else -1]) for n in range(len(values))]


@defect("dicom-several-volumes")
def two_acquisitions(good: Good, folder: Path) -> list[Truth]:
    return several(good, folder, "AcquisitionNumber", (1, 2))


@defect("dicom-several-volumes")
def time_points(good: Good, folder: Path) -> list[Truth]:
    return several(good, folder, "TemporalPositionIdentifier", (1, 2, 3))


@defect("dicom-several-volumes")
def echoes(good: Good, folder: Path) -> list[Truth]:
    return several(good, folder, "EchoNumbers", (1, 2))


@defect("dicom-several-volumes")
def b_values(good: Good, folder: Path) -> list[Truth]:
    return several(good, folder, "DiffusionBValue", (50.0, 800.0))


# --- spacing ---


@defect("dicom-spacing-tag")
def wrong_spacing_between_slices(good: Good, folder: Path) -> list[Truth]:
    return set_all(good, folder, SpacingBetweenSlices=1.0, SliceThickness=9.0)


@defect()
def negative_spacing_between_slices(good: Good, folder: Path) -> list[Truth]:
    return set_all(good, folder, SpacingBetweenSlices=-3.0)


@defect("dicom-header")
def zero_pixel_spacing(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, PixelSpacing=[0, 0])
    return []


@defect("dicom-header")
def negative_pixel_spacing(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, PixelSpacing=[-1.5, -1.5])
    return []


@defect("dicom-no-position")
def pixel_spacing_absent(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, PixelSpacing=None)
    return []


@defect("dicom-mixed-series", others=1)
def mixed_pixel_spacing(good: Good, folder: Path) -> list[Truth]:
    x, y = (float(v) for v in good.sets()[0].PixelSpacing)
    set_one(good, folder, PixelSpacing=[2 * x, 2 * y])
    return []


# --- grey values ---


@defect()
def slope_per_slice(good: Good, folder: Path) -> list[Truth]:
    """As of PET: every slice has a scale of its own."""

    def edit(data: Dataset, index: int) -> None:
        data.RescaleSlope = float(data.get("RescaleSlope", 1)) * (1 + index)
        data.RescaleIntercept = float(data.get("RescaleIntercept", 0)) * (1 + index)

    change(good, folder, edit)
    scale = 1 + np.arange(len(good.files))
    return [replace(good.truth, array=good.truth.array.astype(np.int64) * scale)]


@defect("dicom-header")
def slope_not_a_number(good: Good, folder: Path) -> list[Truth]:
    set_one(good, folder, RescaleSlope="12345")
    patch(folder, b"12345 ", b"NaN   ")
    return []


@defect("dicom-header")
def slope_zero(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, RescaleSlope=0)
    return []


@defect()
def monochrome_1(good: Good, folder: Path) -> list[Truth]:
    """In CT and MR it only says how to show the values, which are measurements (PS3.3 C.7.6.3.1.2)."""
    return set_all(good, folder, PhotometricInterpretation="MONOCHROME1")


@defect()
def signed_and_unsigned(good: Good, folder: Path) -> list[Truth]:
    """Every other slice is stored with the other sign convention."""

    def edit(data: Dataset, index: int) -> None:
        if index % 2 == 0:
            return
        values = data.pixel_array.astype(np.int64)
        shift = -1000 if data.PixelRepresentation == 0 else 1000
        data.PixelRepresentation = 1 - data.PixelRepresentation
        data.BitsStored, data.HighBit = 16, 15
        data.RescaleIntercept = float(data.get("RescaleIntercept", 0)) - shift
        data.RescaleSlope = float(data.get("RescaleSlope", 1))
        kind = np.int16 if data.PixelRepresentation else np.uint16
        data.PixelData = (values + shift).astype(kind).tobytes()
        for element in data:
            if element.VR in ("US", "SS") and element.keyword.endswith(("PaddingValue", "PixelValue")):
                del data[element.tag]

    return change(good, folder, edit)


@defect()
def twelve_of_sixteen_bits(good: Good, folder: Path) -> list[Truth]:
    """Above the twelve stored bits stands what is not meant to be read."""

    def edit(data: Dataset, index: int) -> None:
        values = np.clip(data.pixel_array, 0, 4095).astype(np.uint16)
        data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 11, 0
        data.PixelData = (values | 0xA000).tobytes()

    sets = good.sets()
    change(good, folder, edit)
    slope = float(sets[0].get("RescaleSlope", 1))
    intercept = float(sets[0].get("RescaleIntercept", 0))
    stored = (good.truth.array - intercept) / slope
    return [replace(good.truth, array=np.clip(stored, 0, 4095) * slope + intercept)]


@defect("dicom-header")
def high_bit_beyond(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, BitsStored=24, HighBit=23)
    return []


@defect()
def charset_unknown(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, SpecificCharacterSet="ISO_IR 192")
    patch(folder, b"ISO_IR 192", b"ISO_IR 471")
    return [good.truth]


@defect()
def private_elements(good: Good, folder: Path) -> list[Truth]:
    def edit(data: Dataset, index: int) -> None:
        block = data.private_block(0x0029, "TORTURE", create=True)
        block.add_new(0x01, "OB", bytes(4096))
        block.add_new(0x02, "LO", "nothing")

    return change(good, folder, edit)


@defect()
def icon_inside(good: Good, folder: Path) -> list[Truth]:
    """A small picture in the header, with rows, columns and pixels of its own."""

    def edit(data: Dataset, index: int) -> None:
        icon = Dataset()
        icon.Rows = icon.Columns = 2
        icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
        icon.BitsAllocated = icon.BitsStored = 8
        icon.HighBit, icon.PixelRepresentation, icon.PixelData = 7, 0, bytes(4)
        data.IconImageSequence = Sequence([icon])

    return change(good, folder, edit)


@defect()
def implicit_little_endian(good: Good, folder: Path) -> list[Truth]:
    def edit(data: Dataset, index: int) -> None:
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    return change(good, folder, edit)


@defect("dicom-colour")
def colour(good: Good, folder: Path) -> list[Truth]:
    def edit(data: Dataset, index: int) -> None:
        data.SamplesPerPixel, data.PlanarConfiguration, data.PhotometricInterpretation = 3, 0, "RGB"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        data.PixelData = bytes(data.Rows * data.Columns * 3)

    change(good, folder, edit)
    return []


@defect("dicom-damaged")
def rows_of_another_picture(good: Good, folder: Path) -> list[Truth]:
    rows = good.sets()[0].Rows
    set_all(good, folder, Rows=rows + 40)
    return []


@defect("dicom-damaged")
def series_uid_absent(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, SeriesInstanceUID=None)
    return []


@defect()
def uid_with_leading_zeros(good: Good, folder: Path) -> list[Truth]:
    return raw_series_uid(good, folder, "1.2.003.0004")


@defect("dicom-header")
def uid_with_path_characters(good: Good, folder: Path) -> list[Truth]:
    raw_series_uid(good, folder, "../../../etc/x")
    return []


def raw_series_uid(good: Good, folder: Path, value: str) -> list[Truth]:
    """Put a series UID into the files that pydicom would not write."""
    marker = "1.2.3." + "7" * (len(value) - 6)
    set_all(good, folder, SeriesInstanceUID=marker)
    patch(folder, marker.encode(), value.encode())
    return [good.truth]


@defect()
def wrong_vr(good: Good, folder: Path) -> list[Truth]:
    """Echo time as text of another kind, pixel spacing as long string."""
    change(good, folder, lambda data, i: setattr(data, "SliceThickness", "3"))
    spacing = struct.pack("<HH2s", Tag("PixelSpacing").group, Tag("PixelSpacing").element, b"DS")
    patch(folder, spacing, spacing[:4] + b"LO")
    return [good.truth]


@defect("dicom-header")
def rows_and_columns_absent(good: Good, folder: Path) -> list[Truth]:
    set_all(good, folder, Rows=None, Columns=None)
    return []
