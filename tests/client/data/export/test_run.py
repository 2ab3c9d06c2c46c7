"""The export as a whole: names, references, voxels, refusals, going on after a stop.

Oracles: pydicom, SimpleITK, highdicom.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.data.cache import load_truth
from client.data.prepare import prepare
from client.data.volume import Case
from client.desk.export import run as export_command
from client.site import site_of_file
from common.errors import DataError
from common.study import Study, load_study
from tests.client.data.export.conftest import COLUMNS, ROWS, SLICES

REFERENCES = ("ReferencedSOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def nested(data: Dataset) -> Iterator[Dataset]:
    for element in data:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from nested(item)


def row(out: Path) -> dict[str, str]:
    with (out / "cases.csv").open(encoding="utf-8") as file:
        return next(csv.DictReader(file))


def test_same_input_gives_the_same_bytes_and_two_sites_have_nothing_in_common(hospital: Any) -> None:
    case = hospital.patient()
    first, _ = hospital.export(case)
    again, _ = hospital.export(case, to="again")
    other, _ = hospital.export(case, to="other", home="elsewhere")
    assert contents(first) == contents(again)
    here, there = (
        {str(e.value) for p in out.rglob("*.dcm") for d in [dcmread(p)] for e in d.iterall() if e.VR == "UI"}
        for out in (first, other)
    )
    assert {u for u in here & there if not u.startswith("1.2.840.10008.")} == set()
    assert all(u.startswith(("2.25.", "1.2.840.10008.")) for u in here)
    assert {p.split("/")[0] for p in contents(first)} & {p.split("/")[0] for p in contents(other)} == {
        "cases.csv", "record.json"
    }  # fmt: skip


@pytest.mark.parametrize("label", ["seg", "rtstruct"])
def test_every_reference_resolves_within_the_export(hospital: Any, label: str) -> None:
    out, _ = hospital.export(hospital.patient(label=label))
    whole = [dcmread(p) for p in out.rglob("*.dcm")]
    known = {
        str(d[name].value)
        for d in whole
        for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
        if name in d
    }
    used = [str(item[name].value) for d in whole for item in nested(d) for name in REFERENCES if name in item]
    assert len(used) >= 4
    assert set(used) <= known
    assert {Path(p).stem for p in contents(out) if p.endswith(".dcm")} == {str(d.SOPInstanceUID) for d in whole}


def test_references_to_what_stays_are_dropped(hospital: Any) -> None:
    case = hospital.patient()
    stack = case.images[0]
    half = type(stack)(**{**vars(stack), "files": stack.files[:2], "frames": (0, 0), "instances": stack.instances[:2]})
    out, _ = hospital.export(Case(case.id, case.patient, (half,), case.label))
    seg = dcmread(out / row(out)["label"])
    images = {str(dcmread(p).SOPInstanceUID) for p in (out / row(out)["image"]).iterdir()}
    assert len(images) == 2
    sources = {str(i.ReferencedSOPInstanceUID) for i in nested(seg) if "ReferencedSOPInstanceUID" in i}
    assert sources == images


def test_another_reader_finds_equal_voxels_and_geometry(hospital: Any) -> None:
    case = hospital.patient()
    out, _ = hospital.export(case)
    before = sitk.ReadImage([str(p) for p in case.images[0].files])
    copies = sorted((out / row(out)["image"]).iterdir(), key=lambda p: float(dcmread(p).ImagePositionPatient[2]))
    after = sitk.ReadImage([str(p) for p in copies])
    assert np.array_equal(sitk.GetArrayFromImage(before), sitk.GetArrayFromImage(after))
    for which in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(before, which)() == getattr(after, which)()


def test_segments_are_read_back_with_the_names_that_the_study_has(hospital: Any) -> None:
    case = hospital.patient()
    out, record = hospital.export(case)
    before, after = hd.seg.segread(case.label), hd.seg.segread(out / row(out)["label"])
    assert np.array_equal(before.pixel_array, after.pixel_array)
    assert [s.segment_label for s in (after.get_segment_description(n) for n in (1, 2))] == ["liver", "segment 2"]
    assert after.get_segment_description(1).segmented_property_type.value == "10200004"
    assert "113105" in record.options


STUDY = """
name: chest
data: {labels: [organ, lesion], codes: {lesion: "4147007 |Mass|"}}
plan: {patch: [8, 8, 8]}
training: {steps: 1}
"""
RULES = 'labels: {organ: [{code: 10200004}, "liver*", 5], lesion: "Lesion of*"}'


def labels(study: Study, site: Path, home: Path) -> list[NDArray[np.uint8]]:
    data = prepare(study, site_of_file(site), cache=home / "cache", home=home, insist=False)
    assert [f for f in data.findings if f.severity == "error"] == []
    assert len(data.usable) == len(data.found) == 3
    return sorted((load_truth(case) for case in data.usable), key=lambda array: array.tobytes())


def test_a_copy_reads_back_with_the_names_of_the_study(hospital: Any, tmp_path: Path) -> None:
    hospital.patient(1)
    drawn = dcmread(hospital.patient(2, label="rtstruct").label)
    for contour in drawn.ROIContourSequence[0].ContourSequence:  # Into the image.
        contour.ContourData = [float(v) + (-9, -19, 0)[n % 3] for n, v in enumerate(contour.ContourData)]
    drawn.save_as(hospital.scans / "DOE_JANE_2/label.dcm")
    hospital.patient(3, label="")
    slicer = np.zeros((SLICES, ROWS, COLUMNS), np.uint8)
    slicer[1, 2, 2:4], slicer[2, 2, 2:4] = 5, 7
    image: Any = sitk.GetImageFromArray(slicer)
    image.CopyInformation(sitk.ReadImage([str(hospital.scans / f"DOE_JANE_3/IM{k}") for k in range(SLICES)]))
    slicer_fields = {"0_Name": "Leber", "0_LabelValue": "5", "0_Layer": "0",
                     "1_Name": "Lesion of Jane", "1_LabelValue": "7", "1_Layer": "0"}  # fmt: skip
    for key, text in slicer_fields.items():
        image.SetMetaData(f"Segment{key}", text)
    sitk.WriteImage(image, str(hospital.scans / "3.seg.nrrd"))
    (tmp_path / "study.yaml").write_text(STUDY)
    (hospital.scans / "cases.csv").write_text(
        "case,patient,image,label\na,p1,{0}1/slices,{0}1/label.dcm\nb,p2,{0}2/slices,{0}2/label.dcm\n"
        "c,p3,{0}3/slices,3.seg.nrrd\n".format(hospital.scans / "DOE_JANE_")
    )
    for folder in hospital.scans.glob("DOE*"):
        (folder / "slices").mkdir()
        for file in folder.glob("IM*"):
            file.rename(folder / "slices" / file.name)
    (tmp_path / "site.yaml").write_text(f"name: here\ndata: scans/cases.csv\n{RULES}\n")
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    export_command(study, tmp_path / "site.yaml", out, "remove", False, False, False)
    (tmp_path / "there.yaml").write_text("name: there\ndata: out\n")
    before = labels(load_study(study), tmp_path / "site.yaml", tmp_path / "home")
    after = labels(load_study(study), tmp_path / "there.yaml", tmp_path / "elsewhere")
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert sorted(np.unique(array).tolist() for array in before) == [[0, 1], [0, 1, 2], [0, 1, 2]]
    coded = next(dcmread(path) for path in out.rglob("*.dcm") if dcmread(path).Modality == "SEG").SegmentSequence
    assert [s.SegmentLabel for s in coded] == ["organ", "lesion"]
    assert coded[1].SegmentedPropertyTypeCodeSequence[0].CodeValue == "4147007"


def test_contours_keep_their_points_to_the_digit(hospital: Any) -> None:
    case = hospital.patient(label="rtstruct")
    out, _ = hospital.export(case)
    before, after = dcmread(case.label), dcmread(out / row(out)["label"])
    points = [[list(c.ContourData) for c in d.ROIContourSequence[0].ContourSequence] for d in (before, after)]
    assert points[0] == points[1]
    assert after.StructureSetROISequence[0].ROIName == "ROI 1"


def test_record_tells_what_was_done_and_hashes_every_file(hospital: Any) -> None:
    out, record = hospital.export(hospital.patient(), hospital.patient(2))
    stored = json.loads((out / "record.json").read_text())
    files = {name: body for name, body in contents(out).items() if name not in ("record.json", "cases.csv")}
    assert stored["files"] == {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    assert (stored["cases"], stored["patients"], stored["left_out"]) == (2, 2, {})
    assert stored["options"] == ["113100", "113105"]
    assert record.findings == ()
    assert not (out / ".unfinished").exists()


def test_a_stopped_export_goes_on_and_ends_the_same(hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [hospital.patient(n) for n in (1, 2, 3)]
    whole, _ = hospital.export(*cases, to="whole")
    asked: list[str] = []
    ask = hospital.workers.ask

    def dying(task: str, **arguments: object) -> dict[str, object]:
        if task == "export":
            asked.append(str(arguments["sources"]))
            if len(asked) == 4:
                raise KeyboardInterrupt
        answer: dict[str, object] = ask(task, **arguments)
        return answer

    monkeypatch.setattr(hospital.workers, "ask", dying)
    monkeypatch.setattr("client.data.each.WORKERS", 1)
    with pytest.raises(KeyboardInterrupt):
        hospital.export(*cases)
    assert not (hospital.root / "out" / "record.json").exists()
    with pytest.raises(DataError, match="other options"):
        hospital.export(*cases, dates="shift")
    asked[:4], before = [""] * 4, len(asked)
    out, _ = hospital.export(*cases)
    assert any("DOE_JANE_2" in sources for sources in asked[before:])
    assert not any("DOE_JANE_1" in sources for sources in asked[before:])
    assert contents(out) == contents(whole)


def test_a_case_that_is_left_out_after_a_stop_is_in_no_copy(hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [hospital.patient(n) for n in (1, 2)]
    with monkeypatch.context() as stopped:
        stopped.setattr("client.data.export.run._take_away", lambda *_: 1 / 0)  # All is written, nothing is listed.
        with pytest.raises(ZeroDivisionError):
            hospital.export(*cases)
    assert len(list((hospital.root / "out").glob("P-*"))) == 2
    (hospital.root / "out/cases.csv").write_text("half")
    out, record = hospital.export(cases[1])
    assert record.cases == 1
    assert len(list(out.glob("P-*"))) == 1
    written = {name for name in contents(out) if name.startswith("P-")}
    assert written == set(record.files)


def test_nothing_is_written_among_the_scans_or_over_something_else(hospital: Any) -> None:
    case = hospital.patient()
    before = contents(hospital.scans)
    for place in ("scans", "scans/export", "scans/DOE_JANE_1/x", "home/trainer"):
        with pytest.raises(DataError, match="lies within"):
            hospital.export(case, to=place)
    (hospital.root / "full").mkdir()
    (hospital.root / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        hospital.export(case, to="full")
    hospital.export(case)
    with pytest.raises(DataError, match="not empty"):
        hospital.export(case)
    assert contents(hospital.scans) == before


def test_a_face_stays_unless_the_site_says_otherwise(hospital: Any) -> None:
    large = ((-30.0, 0.0, 0.0, 0.0), (0.0, -30.0, 0.0, 0.0), (0.0, 0.0, 50.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    chest = hospital.patient(1, matrix=large)
    head = hospital.patient(2, matrix=large, facts={"body_part": "HEAD"})
    told = hospital.patient(3, matrix=large, facts={}, description="t1 mprage sag")
    silent = hospital.patient(4, matrix=large, facts={})
    _, record = hospital.export(chest, head, told, silent)
    assert record.left_out == {"face": 2, "face-unknown": 1}
    assert record.cases == 1
    assert {finding.case for finding in record.findings} == {"case-2", "case-3", "case-4"}
    _, record = hospital.export(chest, head, told, silent, to="all", faces=True)
    assert record.cases == 4
    assert "113102" not in record.options


@pytest.mark.parametrize(
    ("changes", "reason", "helps"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned-in", False),
        ({"BurnedInAnnotation": "YES", "Modality": "US"}, "burned-in", False),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, "burned-in-unknown", True),
        ({"Modality": "SC"}, "burned-in-unknown", True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "burned-in-unknown", True),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "burned-in-unknown", True),
        ({"ImageType": ["ORIGINAL", "SECONDARY"]}, "burned-in-unknown", True),
        ({"Modality": "DOC"}, "modality", False),
    ],
)
def test_images_that_may_show_text_stay(hospital: Any, changes: dict[str, object], reason: str, helps: bool) -> None:
    def change(data: Dataset) -> None:
        for name, value in changes.items():
            setattr(data, name, value)

    bad, good = hospital.patient(1, "", change), hospital.patient(2)
    _, record = hospital.export(bad, good)
    assert (record.left_out, record.cases) == ({reason: 1}, 1)
    _, record = hospital.export(bad, good, to="inspected", inspected=True)
    assert record.cases == (2 if helps else 1)


def test_derived_images_that_say_that_they_have_no_text_may_leave(hospital: Any) -> None:
    def change(data: Dataset) -> None:
        data.ImageType, data.BurnedInAnnotation = ["DERIVED", "PRIMARY", "AXIAL"], "NO"

    _, record = hospital.export(hospital.patient(1, "", change))
    assert record.cases == 1


def test_one_damaged_file_costs_its_case_only(hospital: Any) -> None:
    bad, good = hospital.patient(1), hospital.patient(2)
    file = bad.images[0].files[2]
    file.write_bytes(file.read_bytes()[:-20])
    out, record = hospital.export(bad, good)
    assert record.left_out == {"damaged": 1}
    assert str(file.parent) in record.findings[0].what
    assert len(list(out.rglob("*.dcm"))) == 5


def test_when_nothing_may_leave_it_is_said_and_nothing_is_left(hospital: Any) -> None:
    with pytest.raises(DataError, match=r"no case may be exported \(1 found\)"):
        hospital.export(hospital.patient(1, "", lambda d: setattr(d, "BurnedInAnnotation", "YES")))
    assert not (hospital.root / "out").exists() or list((hospital.root / "out").iterdir()) == []


def test_the_secret_is_made_once_and_for_its_owner_only(hospital: Any) -> None:
    hospital.export(hospital.patient())
    key = hospital.home / "trainer" / "pseudonyms.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    assert [p.name for p in key.parent.iterdir()] == [key.name]
