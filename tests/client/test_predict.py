"""Prediction gives the very masks that the study's evaluation judged, on the grid of the files as they lie there."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from client.prediction.desk import predict
from client.prediction.inputs import inputs_of
from client.site import SiteConfig
from common import cli
from common.errors import DataError, ModelError
from tests.client.predicting import judged, model, study_of


def scans(folder: Path, orientation: str = "LPS") -> None:
    """Two cases with a label each, stored in another orientation than ours."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(4)
    shape = (15, 12, 9)
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(orientation), shape)
    affine = np.array([[1, 0, 0, 7.0], [0, 1, 0, -3], [0, 0, 1, 5], [0, 0, 0, 1]]) @ np.diag([1.0, 1.5, 1.2, 1]) @ turn
    for case in ("p1", "p2"):
        image = 100 + 300 * ndimage.gaussian_filter(random.normal(size=shape), 1.5).astype(np.float32)
        label = np.zeros(shape, np.uint8)
        label[2:5, 3:6, 2:4], label[8:11, 5:9, 3:6] = 1, 2
        nib.save(nib.Nifti1Image(image, affine), folder / "images" / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / "labels" / f"{case}.nii.gz")


@pytest.mark.parametrize(
    ("orientation", "other"),
    [
        ("PIR", {}),
        ("LPS", {"evaluation": {"scheme": {"method": "fixed_point", "coarse": 1.5, "margin": 3}}}),
        ("RAS", {"plan": {"patch": [16, 16, 16], "intensity": {"method": "percentile"}}, "postprocess": []}),
    ],
)
def test_masks_are_those_of_the_evaluation(tmp_path: Path, orientation: str, other: dict[str, Any]) -> None:
    study = study_of(**other)
    scans(tmp_path / "data", orientation)
    net = model(tmp_path / "model", study)
    expected = judged(study, SiteConfig(name="x", data=tmp_path / "data"), tmp_path, net)
    images = tmp_path / "data" / "images"
    assert predict(str(tmp_path / "model"), [images], tmp_path / "out", "cpu", tmp_path, as_json=False)
    assert sorted(expected) == ["p1", "p2"]
    for case, mask in expected.items():
        assert len(np.unique(mask)) > 1
        found = nib.load(tmp_path / "out" / f"{case}.nii.gz")
        source = nib.load(images / f"{case}.nii.gz")
        assert np.array_equal(found.affine, source.affine)
        assert found.shape == source.shape
        assert (np.asarray(nib.as_closest_canonical(found).dataobj) == mask).all()


def test_the_table_tells_the_volumes(tmp_path: Path) -> None:
    study = study_of()
    scans(tmp_path / "data")
    model(tmp_path / "model", study)
    one = tmp_path / "data" / "images" / "p2.nii.gz"
    weights = str(tmp_path / "model" / "weights.safetensors")
    assert predict(weights, [one], tmp_path / "out", "cpu", tmp_path, False)
    (row,) = csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())
    mask = nib.load(tmp_path / "out" / "p2.nii.gz")
    # 1 x 1.5 x 1.2 mm a voxel.
    for value, label in enumerate(study.data.labels, start=1):
        assert float(row[f"ml.{label}"]) == pytest.approx((np.asarray(mask.dataobj) == value).sum() * 0.0018, abs=5e-4)
    assert (row["name"], row["source"], row["seg"]) == ("p2", str(one), "")
    assert b"research only" in bytes(mask.header["descrip"])


def test_pictures_give_pictures(tmp_path: Path) -> None:
    study = study_of(
        data={"labels": ["a"], "dimensions": 2}, plan={"size": [16, 16], "patch": [16, 16]}, postprocess=[]
    )
    net = model(tmp_path / "model", study)
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    random = np.random.default_rng(1)
    for case in ("x1", "x2"):
        Image.fromarray(random.integers(0, 255, (20, 28), np.uint8)).save(tmp_path / "data" / "images" / f"{case}.png")
        Image.fromarray(np.eye(20, 28, dtype=np.uint8)).save(tmp_path / "data" / "labels" / f"{case}.png")
    expected = judged(study, SiteConfig(name="x", data=tmp_path / "data"), tmp_path, net)
    assert predict(str(tmp_path / "model"), [tmp_path / "data" / "images"], tmp_path / "out", "cpu", tmp_path, False)
    for case, mask in expected.items():
        assert (np.asarray(Image.open(tmp_path / "out" / f"{case}.png")) == mask).all()


def test_one_bad_image_costs_itself_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans(tmp_path / "data")
    model(tmp_path / "model", study_of())
    images = tmp_path / "data" / "images"
    raw = (images / "p1.nii.gz").read_bytes()
    (images / "p0.nii.gz").write_bytes(raw[: len(raw) // 2])
    nan = nib.load(images / "p1.nii.gz").get_fdata()
    nan[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(nan, np.eye(4)), images / "p3.nii.gz")
    nib.save(nib.Nifti1Image(np.arange(128.0).reshape(4, 4, 4, 2), np.eye(4)), images / "p4.nii.gz")
    arguments = ["predict", str(tmp_path / "model"), str(images), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert cli.run([*arguments, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["done"]] == ["p1", "p2"]
    why = {Path(where).name: text for where, text in told["failed"].items()}
    assert sorted(why) == ["p0.nii.gz", "p3.nii.gz", "p4.nii.gz"]
    assert "damaged" in why["p0.nii.gz"]
    assert "NaN" in why["p3.nii.gz"]
    assert "2 channel(s)" in why["p4.nii.gz"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["p1.nii.gz", "p2.nii.gz", "predictions.csv"]


def test_files_of_channels_belong_together(tmp_path: Path) -> None:
    study = study_of(data={"labels": ["a", "b"], "channels": ["t1", "t2"]})
    for name in ("k_0000", "k_0001", "m_0000"):
        (tmp_path / f"{name}.nii.gz").touch()
    found = inputs_of([tmp_path], study, {})
    assert [(s.name, [p.name for p in s.images]) for s in found.subjects] == [
        ("k", ["k_0000.nii.gz", "k_0001.nii.gz"]), ("m", ["m_0000.nii.gz"])
    ]  # fmt: skip
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "m_0000.nii.gz").touch()
    assert [s.name for s in inputs_of([tmp_path], study, {}).subjects] == ["m-1", "k", "m-2"]


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    model(tmp_path / "model", study_of())
    with pytest.raises(DataError, match="no such file"):
        inputs_of([tmp_path / "nothing"], study_of(), {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image found"):
        inputs_of([tmp_path / "empty"], study_of(), {})
    with pytest.raises(ModelError, match=r"no model 'nothing' here. .*none"):
        predict("nothing", [tmp_path], tmp_path / "out", "cpu", tmp_path, False)


@pytest.mark.data
def test_real_scans_get_the_masks_of_the_evaluation(tmp_path: Path, fedscan_data: Path) -> None:
    """Decathlon hippocampus: byte and float images as they were published."""
    source = fedscan_data / "hippocampus-mr-3d"
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for group in ("group-byte", "group-large"):
            for file in sorted((source / group / name).glob("*.nii.gz"))[:2]:
                shutil.copyfile(file, tmp_path / "data" / name / file.name)
    study = study_of(plan={"spacing": [1, 1, 1], "patch": [24, 24, 24]})
    net = model(tmp_path / "model", study)
    expected = judged(study, SiteConfig(name="x", data=tmp_path / "data"), tmp_path, net)
    assert len(expected) == 4
    assert predict(str(tmp_path / "model"), [tmp_path / "data" / "images"], tmp_path / "out", "cpu", tmp_path, False)
    for case, mask in expected.items():
        found = nib.load(tmp_path / "out" / f"{case}.nii.gz")
        assert (np.asarray(nib.as_closest_canonical(found).dataobj) == mask).all()
        assert len(np.unique(mask)) > 1
