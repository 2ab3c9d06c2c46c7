"""`fedscan data …` as a hospital types it, on real DICOM and on files made here."""

import json
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.site import site_of_file
from common.cli import run
from common.errors import DataError

STUDY = """
name: boxes
data: {labels: [box]}
plan: {patch: [8, 8, 8]}
training: {steps: 1}
"""
HEART = """
name: heart
data:
  labels: [endocardium, myocardium]
  codes: {endocardium: "87878005 |Left cardiac ventricle|"}
plan: {spacing: [2, 2, 10], patch: [32, 32, 8]}
training: {steps: 2}
"""


def hospital(home: Path, cases: int = 6) -> Path:
    """A folder with scans, study.yaml and site.yaml."""
    rng = np.random.default_rng(3)
    for number in range(cases):
        scan = rng.integers(0, 100, (16, 16, 10)).astype(np.int16)
        mask = np.zeros(scan.shape, np.uint8)
        mask[4:10, 5:11, 3:7] = 1
        for kind, array in (("images", scan), ("labels", mask)):
            (home / "scans" / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), home / "scans" / kind / f"case{number}.nii.gz")
    (home / "study.yaml").write_text(STUDY)
    (home / "site.yaml").write_text("name: here\ndata: scans\n")
    return home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return hospital(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = run([*words])
    return code, capsys.readouterr().out


def test_check_finds_what_is_wrong_and_writes_a_page(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "data", "check", "study.yaml")
    assert code == 0
    assert "6 of 6 cases can be used" in text
    (home / "scans/images/case0.nii.gz").write_bytes(b"torn")
    code, text = said(capsys, "data", "check", "study.yaml", "--share", "shared.json")
    assert code == 1
    assert "5 of 6 cases can be used" in text
    assert "unreadable: 1" in text
    page = home / "data-check.html"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "case0" in page.read_text()
    shared = (home / "shared.json").read_text()
    assert "case0" not in shared
    assert str(home) not in shared


def test_prepare_counts_and_the_second_time_only_looks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "data", "prepare", "study.yaml", "--json")
    counts = json.loads(text)
    assert code == 0
    assert (counts["found"], counts["usable"], counts["left_out"]) == (6, 6, {})
    assert sum(counts["parts"].values()) == 6
    before = {path: path.stat().st_mtime_ns for path in (home / "cache").rglob("*.npy")}
    assert len(before) == 24
    (home / "scans/labels/case1.nii.gz").unlink()
    _, text = said(capsys, "data", "prepare", "study.yaml", "--json")
    assert json.loads(text)["usable"] == 5
    assert {path: path.stat().st_mtime_ns for path in (home / "cache").rglob("*.npy")} == before


def test_nothing_usable_is_an_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for image in (home / "scans/images").iterdir():
        image.write_bytes(b"torn")
    assert said(capsys, "data", "prepare", "study.yaml")[0] == 1
    assert said(capsys, "data", "check", "study.yaml")[0] == 1


def test_a_missing_site_file_says_how_to_write_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "study.yaml", "--site", "none.yaml"]) == 2
    assert "two lines are enough" in capsys.readouterr().err


def test_an_excluded_case_is_left_out_until_it_is_included(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "data", "exclude", "case3", "--reason", "moved during the scan")[0] == 0
    assert site_of_file(home / "site.yaml").excluded == {"case3": "moved during the scan"}
    _, text = said(capsys, "data", "check", "study.yaml")
    assert "5 of 6 cases can be used" in text
    assert "left out by the site: moved during the scan" in text
    assert said(capsys, "data", "include", "case3")[0] == 0
    assert "6 of 6" in said(capsys, "data", "check", "study.yaml")[1]
    assert run(["data", "include", "case3"]) == 1
    assert run(["data", "exclude", "case33", "--reason", "x"]) == 1
    assert "Did you mean 'case3'" in capsys.readouterr().err


def test_a_damaged_list_of_exclusions_stops_everything(home: Path) -> None:
    (home / "excluded.json").write_text("{torn")
    with pytest.raises(DataError, match="which cases are left out"):
        site_of_file(home / "site.yaml")


def test_inspect_says_what_files_hold(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "data", "inspect", "scans", "--json")
    found = json.loads(text)
    assert code == 0
    assert (found["layout"], found["cases"], found["labelled"], found["values"]) == ("folders", 6, 6, {"1": 6})
    assert found["groups"][0]["shapes"] == [[16, 16, 10], [16, 16, 10]]
    assert sorted(path.name for path in home.iterdir()) == ["scans", "site.yaml", "study.yaml"]
    assert "6 cases, 6 with a label" in said(capsys, "data", "inspect", "scans")[1]


@pytest.mark.data
def test_inspect_says_what_dicom_holds(fedscan_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = said(capsys, "data", "inspect", str(fedscan_data / "prostate-mr-study-dicom"))
    assert "1 patients, 1 examinations, 7 series, 9 volumes" in text
    assert "b=50, b=400" in text
    _, text = said(capsys, "data", "inspect", str(fedscan_data / "cardiac-mr-dicom"))
    assert "LV_endocardium (87878005 Left cardiac ventricle)" in text


@pytest.mark.data
def test_dicom_is_checked_and_prepared_like_anything_else(tmp_path: Path, fedscan_data: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    (tmp_path / "study.yaml").write_text(HEART)
    (tmp_path / "site.yaml").write_text(
        f"name: toronto\ndata: {fedscan_data / 'cardiac-mr-dicom'}\nseries: {{label: {{modality: SEG}}}}\n"
        "labels: {endocardium: {code: 87878005}, myocardium: 'LV_myo*'}\n"
    )
    words = ("data", "check", str(tmp_path / "study.yaml"), "--site", str(tmp_path / "site.yaml"))
    code, text = said(capsys, *words)
    assert code == 0
    assert "6 of 6 cases can be used" in text
    assert "label-absent: 3" in text  # myocardium is drawn at end-diastole only
    (tmp_path / "site.yaml").write_text(
        f"name: toronto\ndata: {fedscan_data / 'cardiac-mr-dicom'}\nseries: {{label: {{modality: SEG}}}}\n"
        "labels: {endocardium: LV_endocardium}\n"
    )
    code, text = said(capsys, *words)
    assert code == 1
    assert "label-name: 3" in text
    assert "LV_myocardium" in text
