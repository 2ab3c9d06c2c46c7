"""From files to prepared cases: what lands on disk, what is reused, what is left out and why."""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from client.data import assemble
from client.data import cache as cached
from client.data import make as module
from client.data.prepare import prepare
from client.data.preprocess import restore
from client.data.volume import Finding, SiteData, Volume
from client.site import SiteConfig
from common.errors import DataError, StorageError
from common.labels import IGNORE
from common.study import Study

AFFINE = np.diag([-0.8, -0.8, 2, 1])  # stored LPS, as DICOM converters do


def study(**data: object) -> Study:
    return Study.model_validate({
        "name": "boxes", "data": {"labels": ["box"], **data}, "training": {"steps": 1},
        "plan": {"spacing": [1, 1, 1], "patch": [8, 8, 8], "intensity": {"method": "window", "low": 0, "high": 100}},
    })  # fmt: skip


STUDY = study()


def write_case(folder: Path, name: str, seed: int = 0, label: bool = True) -> None:
    rng = np.random.default_rng(seed)
    scan = rng.integers(0, 100, (20, 20, 8)).astype(np.int16)
    mask = np.zeros(scan.shape, np.uint8)
    low = rng.integers(2, 6, 3)
    mask[low[0] : low[0] + 9, low[1] : low[1] + 9, low[2] : low[2] + 2] = 1
    for kind, array in (("images", scan), ("labels", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        if label or kind == "images":
            nib.save(nib.Nifti1Image(array, AFFINE), folder / kind / f"{name}.nii.gz")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for number in range(6):
        write_case(tmp_path / "scans", f"case{number}", number)
    return tmp_path / "scans"


def findings(data: SiteData) -> tuple[Finding, ...]:
    """All but that six patients are few."""
    return tuple(finding for finding in data.findings if finding.code != "few-cases")


def run(scans: Path, the_study: Study = STUDY, home: str = "home", **keys: object) -> SiteData:
    site = SiteConfig.model_validate({"name": "here", "data": scans, **keys})
    return prepare(the_study, site, cache=scans.parent / "cache", home=scans.parent / home)


def test_a_prepared_case_holds_what_its_docstring_says(scans: Path) -> None:
    data = run(scans)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [4, 1, 1]
    assert findings(data) == ()
    case = data.train[0]
    meta, image, label = cached.load_meta(case), cached.load_image(case), cached.load_label(case)
    assert case.folder.parent == scans.parent / "cache" / case.folder.name[:2]
    assert sorted(f.name for f in case.folder.iterdir()) == [
        "foreground.npy", "image.npy", "label.npy", "meta.json", "truth.npy"]  # fmt: skip
    assert isinstance(image, np.memmap)
    # 20 voxels of 0.8 mm are 16 of 1 mm, 8 of 2 mm are 16.
    assert (image.dtype, image.shape, label.dtype, label.shape) == (np.float32, (1, 16, 16, 16), np.uint8, (16,) * 3)
    assert image.min() >= -1
    assert image.max() <= 1
    stored = nib.load(scans / "labels" / f"{case.id}.nii.gz")
    truth = cached.load_truth(case)
    # LPS to RAS turns both in-plane axes.
    np.testing.assert_array_equal(truth, np.asarray(stored.dataobj)[::-1, ::-1])
    np.testing.assert_allclose(meta["own"]["affine"], nib.as_closest_canonical(stored).affine)
    assert meta["voxels"] == [9 * 9 * 2]
    back = restore(np.stack([label == 0, label == 1]).astype(np.float32), meta).argmax(0)
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.9
    foreground = cached.load_foreground(case)
    assert foreground.dtype == np.int32
    assert {tuple(v) for v in foreground} == {(*v, 1) for v in np.argwhere(label)}


def test_nothing_that_names_a_file_or_patient_is_in_the_cache(scans: Path) -> None:
    run(scans)
    for file in (scans.parent / "cache").rglob("*"):
        assert "case" not in str(file.relative_to(scans.parent))
        assert file.is_dir() or b"case" not in file.read_bytes()


def test_a_second_run_decodes_nothing(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_case(scans, "unlabelled", 9, label=False)
    (scans / "images/bad.nii.gz").write_bytes(b"no scan")
    (scans / "labels/bad.nii.gz").write_bytes(b"no scan")
    first = run(scans)
    opened: list[str] = []
    for reading in (module, assemble):
        monkeypatch.setattr(reading, "read", lambda path, **_: opened.append(path.name))
    whole_file = Path.open
    monkeypatch.setattr(Path, "open", lambda p, *a, **k: (opened.append(p.name), whole_file(p, *a, **k))[1])
    assert run(scans) == first
    assert not [name for name in opened if name.endswith(".nii.gz")]
    assert [(f.code, f.case) for f in findings(first)] == [("unreadable", "bad"), ("no-label", "unlabelled")]


def test_another_home_reuses_the_cache(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(scans)
    for reading in (module, assemble):
        monkeypatch.setattr(reading, "read", lambda path, **_: pytest.fail(f"{path} was decoded again"))
    assert run(scans, home="elsewhere") == first


def test_content_is_what_the_voxels_are_in_whatever_file(scans: Path) -> None:
    def contents(data: SiteData) -> dict[str, str]:
        return {c.id: c.content for part in (data.train, data.validation, data.test) for c in part}

    first = contents(run(scans))
    for image in (scans / "images").iterdir():
        loaded = nib.load(image)
        again = nib.Nifti1Image(np.asanyarray(loaded.dataobj).astype("float64"), loaded.affine)
        nib.save(again, image)
    assert contents(run(scans)) == first
    write_case(scans, "case0", seed=17)
    assert {id_ for id_, content in contents(run(scans)).items() if content != first[id_]} == {"case0"}


def test_the_key_follows_content_plan_and_label_rules(scans: Path) -> None:
    def keys(data: SiteData) -> dict[str, str]:
        return {c.id: c.folder.name for part in (data.train, data.validation, data.test) for c in part}

    first = keys(run(scans))
    assert keys(run(scans, study(labels=["tumour"]))).items().isdisjoint(first.items())
    assert keys(run(scans, labels={"box": [1, 2]})).items().isdisjoint(first.items())
    assert keys(run(scans, labels={"box": 1})) == first
    moved = scans.with_name("moved")
    shutil.copytree(scans, moved)
    assert keys(run(moved)) == first
    write_case(scans, "case2", 77)
    changed = {id_ for id_, key in keys(run(scans)).items() if key != first[id_]}
    assert changed == {"case2"}


def test_bad_cases_are_left_out_or_refused(scans: Path) -> None:
    label = scans / "labels/case1.nii.gz"
    nib.save(nib.Nifti1Image(np.full((20, 20, 8), 5, np.uint8), AFFINE), label)
    data = run(scans)
    assert [(f.code, f.severity, f.case) for f in findings(data)] == [("label-value", "error", "case1")]
    assert str(label) in findings(data)[0].what
    assert "case1" not in {c.id for part in (data.train, data.validation, data.test) for c in part}
    (scans / "labels/case3.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)2 problem\(s\).*case1\.nii\.gz.*case3\.nii\.gz"):
        run(scans, study(bad_cases="refuse"))
    write_case(scans, "case1", 1)
    assert [f.case for f in findings(run(scans))] == ["case3"]


def test_voxels_that_nobody_labelled(scans: Path) -> None:
    """Every second slice is annotated, as in the 3D U-Net's sparse annotation."""
    path = scans / "labels/case0.nii.gz"
    stored = np.asarray(nib.load(path).dataobj).copy()
    stored[:, :, ::2] = 200
    nib.save(nib.Nifti1Image(stored, AFFINE), path)
    assert [f.code for f in findings(run(scans))] == ["label-value"]
    data = run(scans, study(ignore=200))
    assert findings(data) == ()
    case = next(c for part in (data.train, data.validation, data.test) for c in part if c.id == "case0")
    truth, label, meta = np.array(cached.load_truth(case)), cached.load_label(case), cached.load_meta(case)
    assert [(truth == v).sum() for v in (0, 1, IGNORE)] == [(stored == v).sum() for v in (0, 1, 200)]
    assert set(np.unique(label)) == {0, 1, IGNORE}
    assert meta["voxels"] == [(stored == 1).sum()]
    assert meta["plan_voxels"] == [(label == 1).sum()]
    foreground = cached.load_foreground(case)
    assert {tuple(v) for v in foreground} == {(*v, 1) for v in np.argwhere(label == 1)}


def test_the_same_scan_of_two_patients_is_left_out(scans: Path) -> None:
    for kind in ("images", "labels"):
        shutil.copy(scans / kind / "case0.nii.gz", scans / kind / "copy.nii.gz")
    (finding,) = findings(run(scans))
    assert (finding.code, finding.case) == ("duplicate", "copy")
    rows = [f"{n},{n if n != 'copy' else 'case0'},images/{n}.nii.gz,labels/{n}.nii.gz"
            for n in (*(f"case{i}" for i in range(6)), "copy")]  # fmt: skip
    (scans / "cases.csv").write_text("\n".join(["case,patient,image,label", *rows]))
    assert [(f.code, f.severity) for f in findings(run(scans))] == [("repeated", "info")]


def test_the_same_voxels_in_another_file_are_the_same_scan(scans: Path) -> None:
    stored = nib.load(scans / "images/case0.nii.gz")
    # Without compression, the first axis turned, a header of its own.
    turned = nib.Nifti1Image(np.asarray(stored.dataobj)[::-1].astype(np.float32), np.diag([0.8, -0.8, 2, 1]))
    turned.header["descrip"] = b"again"
    nib.save(turned, scans / "images/copy.nii")
    mask = np.asarray(nib.load(scans / "labels/case0.nii.gz").dataobj)[::-1]
    nib.save(nib.Nifti1Image(mask, turned.affine), scans / "labels/copy.nii")
    data = run(scans)
    assert [(f.code, f.case) for f in findings(data)] == [("duplicate", "copy")]
    cases = [case for part in (data.train, data.validation, data.test) for case in part]
    assert len({case.image for case in cases}) == len(cases) == 6
    coarse = STUDY.model_copy(update={"plan": STUDY.plan.model_copy(update={"spacing": (2.0, 2.0, 2.0)})})
    again = run(scans, coarse)
    assert {c.id: c.image for c in again.train} == {c.id: c.image for c in data.train}


def test_what_a_datalist_keeps_apart_is_left_out_and_said(scans: Path) -> None:
    rows = [{"image": f"images/case{n}.nii.gz", "label": f"labels/case{n}.nii.gz"} for n in range(6)]
    (scans / "datalist.json").write_text(json.dumps({"training": rows[:4], "testing": rows[4:]}))
    data = run(scans, study(bad_cases="refuse"))
    assert {c.id for part in (data.train, data.validation, data.test) for c in part} == {f"case{n}" for n in range(4)}
    assert [(f.code, f.severity) for f in findings(data)] == [("held-out", "warning")]


def test_a_missing_file_is_a_finding(scans: Path) -> None:
    (scans / "cases.csv").write_text(
        "image,label\nimages/case0.nii.gz,labels/case0.nii.gz\nimages/x.nii.gz,labels/y.nii\n"
    )
    (finding,) = findings(run(scans))
    assert (finding.code, finding.case) == ("unreadable", "x")
    assert str(scans / "images/x.nii.gz") in finding.what


def test_no_usable_case_says_why(tmp_path: Path) -> None:
    write_case(tmp_path / "scans", "a", 1, label=False)
    with pytest.raises(DataError, match=r"(?s)can be used for training.*a\.nii\.gz: no label file"):
        run(tmp_path / "scans")
    write_case(tmp_path / "scans", "b", 2)
    data = run(tmp_path / "scans", use="test")
    assert [c.id for c in data.test] == ["b"]
    assert not data.train
    assert not data.validation


def test_later_cases_do_not_move_the_earlier_ones(scans: Path) -> None:
    before = run(scans)
    for number in range(6, 16):
        write_case(scans, f"case{number}", number)
    after = run(scans)
    for part in ("train", "validation", "test"):
        assert {c.id for c in getattr(before, part)} <= {c.id for c in getattr(after, part)}
    assert [len(part) for part in (after.train, after.validation, after.test)] == [10, 3, 3]


def test_progress_counts_every_case(scans: Path) -> None:
    seen: list[tuple[int, int]] = []
    site = SiteConfig(name="here", data=scans)
    prepare(STUDY, site, cache=scans / "c", home=scans / "h", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]


def test_progress_counts_cases_when_they_are_done(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first case is held up until the other five are counted."""
    others, whole = threading.Event(), module.read
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def slow(path: Path, label: bool = False) -> Volume:
        if path.name == "case0.nii.gz":
            assert others.wait(30)
        return whole(path, label=label)

    for reading in (module, assemble):
        monkeypatch.setattr(reading, "read", slow)
    site = SiteConfig(name="here", data=scans)
    prepare(STUDY, site, cache=scans / "c", home=scans / "h", progress=lambda done, _: done == 5 and others.set())
    assert others.is_set()


def test_a_folder_that_cannot_be_written_is_said(scans: Path) -> None:
    site = SiteConfig(name="here", data=scans)
    (scans / "file").touch()
    for places in ({"cache": scans / "file", "home": scans / "h"}, {"cache": scans / "c", "home": scans / "file"}):
        with pytest.raises(StorageError, match=r"file.* could not be written"):
            prepare(STUDY, site, **places)


def test_a_damaged_cache_is_made_again(scans: Path) -> None:
    first = run(scans)
    case = first.train[0]
    image = np.array(cached.load_image(case))
    for damage in ("image.npy", "meta.json"):
        os.truncate(case.folder / damage, 40)
        assert run(scans) == first
        np.testing.assert_array_equal(cached.load_image(case), image)
    shutil.rmtree(case.folder)
    assert run(scans) == first
    (scans.parent / "home/intake.json").write_text("{damaged")
    assert run(scans) == first


def test_many_writers_of_one_case(tmp_path: Path) -> None:
    folder = cached.folder_of(tmp_path, "ab" * 32)
    own = {"shape": [4], "affine": np.eye(4).tolist(), "spacing": [1.0]}
    meta = {"image": "", "content": "", "own": own, "plan": own, "voxels": [1], "plan_voxels": [1], "unlabelled": [],
            "notes": [], "gate": {}}  # fmt: skip
    left = folder.parent / ".killed.123"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))

    def write(_: int) -> bool:
        cached.store(folder, {"image": np.arange(1000)}, meta)  # type: ignore[arg-type]
        return cached.is_complete(folder)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(40)))
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]


def test_the_same_files_give_the_same_bytes(scans: Path, tmp_path: Path) -> None:
    site = SiteConfig(name="here", data=scans)
    one, two = (prepare(STUDY, site, cache=tmp_path / n, home=tmp_path / n) for n in ("one", "two"))
    for a, b in zip(one.train, two.train, strict=True):
        for file in a.folder.iterdir():
            assert file.read_bytes() == (b.folder / file.name).read_bytes()


def test_foreground_is_bounded_and_balanced() -> None:
    label = np.zeros((40, 40, 40), np.uint8)
    label[:30] = 1
    label[35, :10, :10] = 2
    chosen = module._foreground(label, "key")
    np.testing.assert_array_equal(chosen[:, 3], label[tuple(chosen[:, :3].T)])
    assert np.bincount(chosen[:, 3]).tolist() == [0, module.FOREGROUND // 2, 100]
    assert len(np.unique(chosen, axis=0)) == len(chosen)
    # Drawn over the whole label, not its first voxels: the mean index of 0 .. 29 is 14.5.
    assert chosen[chosen[:, 3] == 1][:, 0].mean() == pytest.approx(14.5, abs=0.5)


def test_grey_pictures_saved_as_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for number in range(3):
        for kind in ("images", "labels"):
            (tmp_path / "xray" / kind).mkdir(parents=True, exist_ok=True)
            grey = rng.integers(0, 255, (40, 30), dtype=np.uint8)
            picture = Image.fromarray(grey).convert("RGB" if kind == "images" else "L")
            picture.save(tmp_path / "xray" / kind / f"{number}.png")
    the_study = Study.model_validate({
        "name": "lungs", "data": {"labels": ["lung"], "dimensions": 2}, "training": {"steps": 1},
        "plan": {"size": [16, 16], "patch": [8, 8]},
    })  # fmt: skip
    data = run(tmp_path / "xray", the_study, labels={"lung": {"from": 128}})
    assert all(finding.severity == "warning" for finding in findings(data))
    case = data.train[0]
    assert cached.load_image(case).shape == (1, 16, 16)
    grey = np.asarray(Image.open(tmp_path / "xray/labels" / f"{case.id}.png"))
    np.testing.assert_array_equal(cached.load_truth(case), grey >= 128)
    assert cached.load_foreground(case).shape[1] == 2 + 1


def test_hashes_are_taken_again_when_a_file_changes(tmp_path: Path) -> None:
    from client.data.memory import Memory

    file, memory = tmp_path / "f", Memory(tmp_path)
    file.write_text("one")
    first = memory.digest(file)
    memory.save()
    assert json.loads((tmp_path / "intake.json").read_text())["hashes"][str(file)][0] == first
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert Memory(tmp_path).digest(file) != first
