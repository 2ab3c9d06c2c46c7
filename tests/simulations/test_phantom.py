"""Phantoms against closed forms (volume, noise), nibabel, SimpleITK, Pillow and the catalogue that reads real scans."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from typer.testing import CliRunner

from client.data.catalogue import find_cases
from client.site import SiteConfig
from common.errors import StudyError
from common.seeds import generator
from simulations.anatomy import LIVER, ORGANS, Ellipsoid, Patient
from simulations.phantom import make_phantom
from simulations.phantom_cli import app
from simulations.scanner import SPACING, Scanner, scan, scanner


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_phantom(tmp_path_factory.mktemp("phantom"), cases=3)


def patient(*shapes: Ellipsoid) -> Patient:
    """A patient whose shapes are not bent."""
    none = np.zeros((1, 3), np.float32)
    return Patient(shapes, none, none, np.zeros(1, np.float32), lesion=0.5)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def test_an_ellipsoid_has_the_volume_of_the_formula() -> None:
    radii = (17.0, 20.0, 23.0)
    result = scan(patient(Ellipsoid(LIVER, (2, -3, 4), radii)), Scanner(), 3, generator(1))
    volume = (result.label == 1).sum() * np.prod(result.spacing)
    assert volume == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.02)


def test_air_is_noise_of_the_stated_strength() -> None:
    result = scan(patient(), Scanner(noise=0.07, gain=float(np.log(2))), 3, generator(1))
    # Usual noise 0.03 of the brightest tissue, which is stored as 1000 times the gain.
    assert result.image.std() == pytest.approx((0.03 + 0.07) * 2000, rel=0.02)
    assert not result.label.any()


def test_upside_down_grey_keeps_the_labels() -> None:
    organ = patient(Ellipsoid(LIVER, (0, 0, 0), (25, 25, 25)))
    usual, turned = (scan(organ, Scanner(inverted=share), 3, generator(1)) for share in (0.0, 1.0))
    inside = usual.label == 1
    assert np.array_equal(usual.label, turned.label)
    assert usual.image[inside].mean() > usual.image[~inside].mean() + 300
    assert turned.image[inside].mean() < turned.image[~inside].mean() - 300


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_phantom(tmp_path / name, sites=2, cases=2)
    make_phantom(tmp_path / "other", sites=2, cases=2, seed=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    assert all(one[file] != other[file] for file in one if file.endswith(".nii.gz"))


def test_more_cases_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    few, many = (contents(make_phantom(tmp_path / str(n), sites=1, cases=n)[0]) for n in (1, 2))
    assert {f: h for f, h in many.items() if f in few and f != "dataset.json"}.items() <= few.items()


def test_a_second_call_writes_nothing(tmp_path: Path) -> None:
    made = make_phantom(tmp_path, sites=2, cases=2, dimensions=2)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    assert make_phantom(tmp_path, sites=2, cases=2, dimensions=2) == made
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")} == before


def test_an_interrupted_folder_is_completed(tmp_path: Path) -> None:
    make_phantom(tmp_path, sites=1, cases=2, dimensions=2)
    whole = contents(tmp_path)
    (tmp_path / "phantom.json").unlink()
    next(tmp_path.rglob("*_0000.png")).write_bytes(b"half a file")
    make_phantom(tmp_path, sites=1, cases=2, dimensions=2)
    assert contents(tmp_path) == whole


def test_other_phantoms_are_not_overwritten(tmp_path: Path) -> None:
    make_phantom(tmp_path, sites=1, cases=1, dimensions=2)
    with pytest.raises(StudyError, match="other settings"):
        make_phantom(tmp_path, sites=1, cases=1, dimensions=2, difference=0.5)


def test_no_difference_means_one_scanner() -> None:
    assert [scanner(i, 0.0, generator(1, i)) for i in range(6)] == [Scanner()] * 6


def test_the_dial_moves_every_hospital_further_from_the_usual() -> None:
    for site in (1, 2, 3):
        half, full = (scanner(site, d, generator(1, site)) for d in (0.5, 1.0))
        for name, value in vars(full).items():
            if isinstance(value, float):
                assert getattr(half, name) == pytest.approx(value / 2)


def test_the_catalogue_finds_every_case(hospitals: list[Path]) -> None:
    for folder in hospitals:
        cases = find_cases(SiteConfig(name=folder.name, data=folder), 1)
        assert len(cases) == 3 == len({case.patient for case in cases})
        assert all(case.label and case.label.is_file() and case.images[0].is_file() for case in cases)


def test_volumes_follow_the_description_of_nnunet(hospitals: list[Path]) -> None:
    for folder in hospitals:
        description = json.loads((folder / "dataset.json").read_text())
        assert description["labels"] == {"background": 0, "liver": 1, "kidneys": 2}
        images = sorted((folder / "imagesTr").iterdir())
        assert description["numTraining"] == len(images) == 3
        assert all(f.name.endswith(f"_0000{description['file_ending']}") for f in images)


def test_image_and_label_lie_on_one_grid(hospitals: list[Path]) -> None:
    for file in (f for folder in hospitals for f in (folder / "imagesTr").iterdir()):
        image = nibabel.load(file)
        label = nibabel.load(file.parents[1] / "labelsTr" / file.name.replace("_0000", ""))
        assert image.shape == label.shape
        assert max(image.shape) <= 48
        np.testing.assert_array_equal(image.affine, label.affine)
        values = np.unique(np.asarray(label.dataobj)).tolist()
        assert 1 in values
        assert set(values) <= {0, 1, 2}


def test_hospitals_store_different_grids(hospitals: list[Path]) -> None:
    first = [nibabel.load(next((folder / "imagesTr").iterdir())) for folder in hospitals]
    assert ["".join(nibabel.aff2axcodes(i.affine)) for i in first] == ["RAS", "LPS", "PIR", "LAS"]
    thick = [max(i.header.get_zooms()) / SPACING for i in first]
    assert thick[0] == pytest.approx(1)
    assert thick[1] > 1.7  # slices nearly twice as far apart


def test_the_liver_is_on_the_right_whatever_the_orientation(hospitals: list[Path]) -> None:
    for file in (f for folder in hospitals for f in (folder / "labelsTr").iterdir()):
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(sitk.ReadImage(str(file)))
        x, y, _ = shape.GetCentroid(1)  # mm in LPS: the patient's right is negative
        assert x < -5
        if shape.HasLabel(2):
            assert shape.GetCentroid(2)[1] > y  # kidneys lie behind the liver


def test_pictures_are_grey_pngs(tmp_path: Path) -> None:
    folder = make_phantom(tmp_path, sites=1, cases=3, dimensions=2)[0]
    cases = find_cases(SiteConfig(name="a", data=folder), 1)
    assert len(cases) == 3
    for case in cases:
        assert case.label is not None
        with Image.open(case.images[0]) as image, Image.open(case.label) as label:
            assert image.mode == label.mode == "L"
            assert image.size == label.size
            array = np.asarray(label)
        assert set(np.unique(array).tolist()) <= set(range(len(ORGANS) + 1))
        assert _centre(array == 1)[1] < array.shape[1] / 2  # the patient's right is on the left
        assert _centre(array == 1)[0] < array.shape[0] / 2  # the front is at the top


def _centre(mask: np.ndarray) -> Sequence[float]:
    return np.argwhere(mask).mean(axis=0).tolist()


def test_the_command_writes_hospitals(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [str(tmp_path / "scans"), "--sites", "2", "--cases", "1"])
    assert done.exit_code == 0
    assert done.output.split() == [str(tmp_path / "scans" / f"hospital-{i}") for i in (1, 2)]
    assert contents(tmp_path / "scans" / "hospital-2")
