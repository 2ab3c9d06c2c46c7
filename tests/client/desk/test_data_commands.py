"""`fedscan data …` as a hospital types it, on real DICOM and on files made here."""

import json
import os
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from client.data.catalogue import look
from client.data.volume import Finding, Stack
from client.desk.check import by_severity
from client.site import site_of_file
from common.cli import run
from common.errors import DataError
from tests.client.data.dicom.series import data_sets, smooth, write

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


def dicom_hospital(home: Path, series: dict[str, str]) -> None:
    """One examination: a series of this description in each folder; in a second study two of them are channels."""
    study, frame = generate_uid(), generate_uid()

    def one(_: int, data: Dataset) -> None:
        data.StudyInstanceUID, data.FrameOfReferenceUID = study, frame

    for folder, description in series.items():
        sets = data_sets(smooth((5, 9, 8)), modality="MR", change=one)
        for data in sets:
            data.SeriesDescription = description
        write(sets, home / "scans" / folder)
    (home / "both.yaml").write_text(STUDY.replace("labels: [box]", "labels: [box], channels: [adc, t2]"))
    (home / "study.yaml").write_text(STUDY.replace("labels: [box]", "labels: [box], channels: [t2]"))
    (home / "site.yaml").write_text(
        "name: here\ndata: scans\nseries: {t2: {description: T2}, adc: {description: ADC}}\n"
    )


def test_who_is_left_out_of_one_study_is_left_out_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    dicom_hospital(tmp_path, {"a": "ADC", "b": "T2"})
    one, both = (
        look(site_of_file(tmp_path / "site.yaml"), len(names), names).cases for names in (["t2"], ["adc", "t2"])
    )
    assert [case.id for case in one] != [case.id for case in both]
    assert said(capsys, "data", "exclude", one[0].id, "--reason", "consent withdrawn")[0] == 0
    _, text = said(capsys, "data", "check", "both.yaml", "--json")
    codes = [(finding["code"], finding["case"]) for finding in json.loads(text)["findings"]]
    assert ("excluded", both[0].id) in codes
    assert not {"no-label", "excluded-unknown"} & {code for code, _ in codes}
    # Any volume of a case names it.
    assert said(capsys, "data", "include", one[0].id)[0] == 0
    assert said(capsys, "data", "exclude", both[0].id, "--reason", "consent withdrawn")[0] == 0


def test_a_series_left_out_stays_out_when_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dicom_hospital(tmp_path, {"b": "T2"})
    (case,) = look(site_of_file(tmp_path / "site.yaml"), 1, ["t2"]).cases
    assert said(capsys, "data", "exclude", case.id, "--reason", "consent withdrawn")[0] == 0
    files = sorted((tmp_path / "scans/b").iterdir())
    for file in files:  # The same series once more, turned: it now holds two volumes with names of their own.
        data = dcmread(file)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
        data.save_as(file.with_name(f"{file.name}-turned"))
    cases = look(site_of_file(tmp_path / "site.yaml"), 1, ["t2"]).cases
    assert len(cases) == 2
    assert case.id not in {own.id for own in cases}
    _, text = said(capsys, "data", "check", "study.yaml", "--json")
    assert [f["code"] for f in json.loads(text)["findings"]].count("excluded") == 2


def pictures(home: Path) -> list[Path]:
    """Three X-ray pictures of one series, in the order of their numbers."""
    (home / "site.yaml").write_text("name: here\ndata: scans\n")
    (home / "study.yaml").write_text(
        "name: chest\ndata: {labels: [lung], dimensions: 2}\nplan: {patch: [8, 8], size: [8, 8]}\n"
        "training: {steps: 1}\n"
    )
    return write(data_sets(smooth((3, 9, 8)), modality="CR"), home / "scans")


def left_out(capsys: pytest.CaptureFixture[str]) -> list[str]:
    _, text = said(capsys, "data", "check", "study.yaml", "--json")
    return [finding["case"] for finding in json.loads(text)["findings"] if finding["code"] == "excluded"]


def by_file(home: Path) -> dict[Path, str]:
    cases = look(site_of_file(home / "site.yaml"), 1, ["image"]).cases
    return {source.files[0]: case.id for case in cases for source in case.images if isinstance(source, Stack)}


def test_an_exclusion_follows_its_picture_when_the_names_of_others_shift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, third = pictures(tmp_path)
    name = by_file(tmp_path)[second]
    assert said(capsys, "data", "exclude", name, "--reason", "consent withdrawn")[0] == 0
    first.unlink()
    now = by_file(tmp_path)
    assert now[third] == name  # The name has come to mean another picture.
    assert left_out(capsys) == [now[second]]
    text = said(capsys, "data", "check", "study.yaml")[1]
    assert f"left out by the site (excluded as {name}): consent withdrawn" in text
    assert run(["data", "export", "study.yaml", "--out", "copy"]) == 0, capsys.readouterr().err
    copies = [dcmread(path).PixelData for path in (tmp_path / "copy").rglob("*.dcm")]
    assert copies == [dcmread(third).PixelData]
    # What now has the name can be left out too, and what had it before stays out.
    assert said(capsys, "data", "exclude", name, "--reason", "moved")[0] == 0
    assert sorted(left_out(capsys)) == sorted([now[second], now[third]])
    third.unlink()
    assert left_out(capsys) == list(by_file(tmp_path).values())


def test_a_file_that_was_left_out_stays_out_under_another_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "data", "exclude", "case3", "--reason", "consent withdrawn")[0] == 0
    for kind in ("images", "labels"):
        (home / "scans" / kind / "case3.nii.gz").rename(home / "scans" / kind / "case9.nii.gz")
    assert left_out(capsys) == ["case9"]
    assert said(capsys, "data", "export", "study.yaml", "--out", "copy")[0] == 0
    assert len((home / "copy/cases.csv").read_text().splitlines()) == 1 + 5
    # Another scan under the old name is out as well: nobody has taken the name off the list.
    (home / "scans/images/case2.nii.gz").rename(home / "scans/images/case3.nii.gz")
    assert left_out(capsys) == ["case3", "case9"]


def test_a_list_from_before_there_were_marks_goes_by_names(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"reason": "moved", "when": "2025-03-01T10:00:00Z", "who": "ann"}
    (home / "excluded.json").write_text(json.dumps({"case3": entry}))
    assert left_out(capsys) == ["case3"]


def test_all_that_is_kept_lies_where_the_link_to_the_sites_file_lies(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "config").mkdir()
    (home / "site.yaml").rename(home / "config/site.yaml")
    (home / "site.yaml").symlink_to("config/site.yaml")  # As Kubernetes shows a ConfigMap.
    assert said(capsys, "data", "exclude", "case3", "--reason", "moved")[0] == 0
    assert left_out(capsys) == ["case3"]
    assert [path.name for path in (home / "config").iterdir()] == ["site.yaml"]
    assert {"cache", "trainer", "excluded.json", "data-check.html"} <= {path.name for path in home.iterdir()}
    assert said(capsys, "data", "include", "case3")[0] == 0
    assert left_out(capsys) == []


def test_a_case_can_be_left_out_while_the_scans_are_away(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "scans").rename(home / "elsewhere")
    assert run(["data", "exclude", "case3", "--reason", "consent withdrawn"]) == 0
    assert "not looked up" in capsys.readouterr().err
    (home / "elsewhere").rename(home / "scans")
    assert "5 of 6 cases can be used" in said(capsys, "data", "check", "study.yaml")[1]


def test_names_that_are_no_text_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    dicom_hospital(tmp_path, {os.fsdecode(b"M\xfcller\x1b[31m"): "T2"})
    for _ in range(2):  # The second time from what was remembered.
        code, text = said(capsys, "data", "check", "study.yaml")
        assert code == 1
        assert "scans/M\ufffdller\ufffd[31m: no label file" in text


def test_cases_named_by_bytes_that_are_no_text(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("scans/images/case1.nii.gz", "scans/labels/case1.nii.gz"):
        (home / file).rename(os.fsdecode(os.fsencode((home / file).parent) + b"/M\xfcller\x1b[31m.nii.gz"))
    code, text = said(capsys, "data", "check", "study.yaml")
    assert code == 0
    assert "6 of 6 cases can be used" in text
    assert said(capsys, "data", "exclude", "M\xfcller_[31m", "--reason", "moved")[0] == 0
    assert "5 of 6 cases can be used" in said(capsys, "data", "check", "study.yaml")[1]


def test_where_no_volume_is_whole_it_is_said_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    dicom_hospital(tmp_path, {"b": "T2"})
    in_order = sorted((dcmread(f).ImagePositionPatient[2], f) for f in (tmp_path / "scans/b").iterdir())
    in_order[2][1].unlink()
    assert "dicom-missing-slice" in said(capsys, "data", "inspect", "scans")[1]
    code, text = said(capsys, "data", "check", "study.yaml")
    assert code == 1
    assert "dicom-missing-slice: 1" in text
    assert run(["data", "prepare", "study.yaml"]) == 1
    assert "1 slice(s) are missing" in capsys.readouterr().err


def test_prepare_says_of_every_case_why_it_is_not_used(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "scans/labels/case1.nii.gz").unlink()
    assert said(capsys, "data", "exclude", "case2", "--reason", "moved")[0] == 0
    _, text = said(capsys, "data", "prepare", "study.yaml")
    assert "4 of 6 cases can be used" in text
    assert "case1.nii.gz: no label file" in text
    assert "left out by the site: moved" in text


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


def test_inspect_names_files_that_cannot_be_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        (home / f"scans/images/case{number}.nii.gz").write_bytes(b"torn")
    _, text = said(capsys, "data", "inspect", "scans")
    assert "6 with a file that cannot be read" in text
    assert [f"case{number}.nii.gz" in text for number in range(6)] == [True] * 5 + [False]
    assert "… and 1 more" in text


def test_each_remedy_of_a_kind_of_finding_is_shown_and_at_most_three(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding("unreadable", "error", f"c{n}", "torn", f"Do {n}.") for n in (1, 1, 2, 3, 4)]
    remedies = [line.strip() for line in by_severity(found) if "→" in line]
    assert remedies == ["→ Do 1.", "→ Do 2.", "→ Do 3."]


@pytest.mark.data
def test_inspect_says_what_dicom_holds(fedscan_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = said(capsys, "data", "inspect", str(fedscan_data / "prostate-mr-study-dicom"))
    assert "1 patients, 1 examinations, 7 series, 9 volumes" in text
    assert "b=50, b=400" in text
    _, text = said(capsys, "data", "inspect", str(fedscan_data / "cardiac-mr-dicom"))
    assert "LV_endocardium (87878005 Left cardiac ventricle)" in text


@pytest.mark.data
def test_a_table_may_name_a_dicom_file_and_its_segmentation(home: Path, fedscan_data: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    here = fedscan_data / "dicom-seg-rtstruct-small/dcmqi-24x38x3"
    (home / "cases.csv").write_text(f"case,patient,image,label\na,p,{here}/multiframe/mf.dcm,{here}/seg/label.seg\n")
    (home / "site.yaml").write_text("name: here\ndata: cases.csv\nlabels: {box: Liver}\n")
    code, text = said(capsys, "data", "check", "study.yaml")
    assert code == 0
    assert "1 of 1 cases can be used" in text


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
