"""NIfTI, NRRD and pictures: clean headers, equal voxels. Oracles: nibabel, SimpleITK, Pillow, tifffile."""

import csv
import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image, PngImagePlugin

from client.data.readers import read
from client.data.volume import Case
from common.errors import DataError

MARK = "ZQXKCANARY"
AFFINE = np.array([[0, -1.5, 0, 20], [0.7, 0, 0, -9], [0, 0, 3, 4], [0, 0, 0, 1.0]])


def exported(hospital: Any, image: Path, label: Path, **options: object) -> tuple[Path, Path]:
    out, record = hospital.export(Case("DOE", "JANE", (image,), label), **options)
    with (out / "cases.csv").open() as file:
        row = next(csv.DictReader(file))
    assert set(record.files) == {row["image"], row["label"]}
    return out / row["image"], out / row["label"]


def marked(path: Path) -> bool:
    raw = path.read_bytes()
    raw += gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else b""
    return any(m in raw for m in (MARK.encode(), MARK.encode("utf-16-le"), b"DOE", b"JANE"))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti(hospital: Any, kind: Any, ending: str, order: str) -> None:
    hospital.scans.mkdir()
    array = np.random.default_rng(1).integers(-1000, 1000, (5, 6, 4)).astype(np.int16)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    header.set_slope_inter(2.0, -5.0)
    image = kind(array * 2.0 - 5.0, AFFINE, header)
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = (MARK,) * 3
    if kind is nib.Nifti1Image:
        image.header["db_name"], image.header["data_type"] = MARK, MARK[:9]
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"{MARK} DOE^JANE".encode()))
    paths = [hospital.scans / f"{MARK}_{name}{ending}" for name in ("image", "label")]
    for path in paths:
        nib.save(image, path)
    if ending == ".nii":
        paths[0].write_bytes(paths[0].read_bytes() + MARK.encode())
    assert marked(paths[0])
    for before, after in zip(paths, exported(hospital, *paths), strict=True):
        assert not marked(after)
        old: Any = nib.load(before)
        new: Any = nib.load(after)
        assert np.array_equal(np.asanyarray(old.dataobj), np.asanyarray(new.dataobj))
        assert np.array_equal(old.affine, new.affine)
        assert new.header["descrip"] == b""
        assert len(new.header.extensions) == 0
        assert new.header.get_xyzt_units() == old.header.get_xyzt_units()


def test_nrrd_with_segments(hospital: Any) -> None:
    hospital.scans.mkdir()
    image: Any = sitk.GetImageFromArray(np.random.default_rng(2).integers(0, 9, (4, 6, 5)).astype(np.int16))
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetOrigin((-10.0, 20.5, 7.25))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    fields = {
        "Segment0_Name": "Liver", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
        "Segment0_ID": MARK, "Segment0_Tags": f"x:{MARK}",
        "Segment1_Name": MARK, "Segment1_LabelValue": "2", "Segment1_Layer": "0",
        "Segment1_Extent": "0 4 0 5 0 3", "Note": MARK,
    }  # fmt: skip
    for key, value in fields.items():
        image.SetMetaData(key, value)
    paths = [hospital.scans / "DOE.nrrd", hospital.scans / "DOE.seg.nrrd"]
    for path in paths:
        sitk.WriteImage(image, str(path))
    assert marked(paths[1])
    scan, label = exported(hospital, *paths)
    for path in (scan, label):
        assert not marked(path)
        new: Any = sitk.ReadImage(str(path))
        assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(new))
        for which in ("GetOrigin", "GetSpacing", "GetDirection"):
            assert np.allclose(getattr(image, which)(), getattr(new, which)(), rtol=0, atol=1e-12)
    kept = {key: new.GetMetaData(key) for key in new.GetMetaDataKeys() if key.startswith("Segment")}
    assert kept == {
        "Segment0_Name": "liver", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
        "Segment0_ID": "Segment0",
        "Segment1_Name": "Segment1", "Segment1_LabelValue": "2", "Segment1_Layer": "0",
        "Segment1_Extent": "0 4 0 5 0 3",
        "Segment1_ID": "Segment1",
    } or kept == {
        "Segment0_Name": "liver", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
        "Segment0_ID": "Segment0",
        "Segment1_Name": "Segment1", "Segment1_LabelValue": "2", "Segment1_Layer": "0",
        "Segment1_Extent": "0 4 0 5 0 3",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_png(hospital: Any, mode: str, orientation: int) -> None:
    hospital.scans.mkdir()
    path = hospital.scans / "DOE.png"
    values = np.random.default_rng(3).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(values if mode == "RGB" else values[..., 0])
    if mode == "I;16":
        picture = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    if mode == "P":
        picture = picture.convert("P")
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", MARK)
    info.add_text("packed", MARK, zip=True)
    info.add_itxt("XML:com.adobe.xmp", MARK)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = MARK, orientation
    picture.save(path, pnginfo=info, exif=exif)
    path.write_bytes(path.read_bytes() + MARK.encode())
    clean, label = exported(hospital, path, path)
    for copy, is_label in ((clean, False), (label, True)):
        assert not marked(copy)
        assert np.array_equal(read(copy, label=is_label).array, read(path, label=is_label).array)
    with Image.open(clean) as opened:
        assert set(dict(opened.getexif())) <= {0x0112}
        assert not {"Patient", "packed", "XML:com.adobe.xmp"} & set(opened.info)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", [1, 3])
def test_jpeg(hospital: Any, progressive: bool, orientation: int) -> None:
    hospital.scans.mkdir()
    path = hospital.scans / "DOE.jpg"
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = MARK, orientation
    picture = Image.fromarray(np.random.default_rng(4).integers(0, 256, (40, 33, 3), dtype=np.uint8))
    picture.save(path, exif=exif, comment=MARK.encode(), progressive=progressive, icc_profile=MARK.encode())
    path.write_bytes(path.read_bytes() + MARK.encode())
    for copy in exported(hospital, path, path):
        assert not marked(copy)
        assert np.array_equal(read(copy).array, read(path).array)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiff(hospital: Any, kind: Any) -> None:
    hospital.scans.mkdir()
    path = hospital.scans / "DOE.tif"
    values = np.random.default_rng(5).integers(0, 255, (12, 11)).astype(kind)
    tifffile.imwrite(path, values, description=MARK, software=MARK, metadata={"who": MARK}, compression="zlib")
    for copy in exported(hospital, path, path):
        assert not marked(copy)
        assert np.array_equal(tifffile.imread(copy), values)


def test_large_volumes_may_show_a_face(hospital: Any) -> None:
    hospital.scans.mkdir()
    path = hospital.scans / "x.nii.gz"
    cube: Any = sitk.GetImageFromArray(np.ones((30, 30, 30), np.uint8))
    cube.SetSpacing((5.0, 5.0, 5.0))
    sitk.WriteImage(cube, str(path))
    with pytest.raises(DataError, match="large enough to show a face"):
        hospital.export(Case("x", "x", (path,), None))
    _, record = hospital.export(Case("x", "x", (path,), None), faces=True)
    assert record.cases == 1


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.png", "x.jpg", "x.tif", "x.nrrd"])
def test_damaged_files_stay_and_say_so(hospital: Any, name: str) -> None:
    hospital.scans.mkdir()
    path = hospital.scans / name
    path.write_bytes(b"\x89PNG\r\n\x1a\nnothing" if name == "x.png" else b"nothing that is a scan at all")
    with pytest.raises(DataError, match="damaged"):
        hospital.export(Case("x", "x", (path,), None), faces=True)
    assert not list(hospital.root.rglob("out/P-*"))
