"""Every layout in which sites keep their cases, as small trees of empty files: the catalogue opens no scan."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from client.data.catalogue import find_cases, look
from client.data.volume import Case
from client.site import SiteConfig
from common.errors import DataError


def tree(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def site(data: Path, **keys: object) -> SiteConfig:
    return SiteConfig.model_validate({"name": "here", "data": data, **keys})


def test_nnunet(tmp_path: Path) -> None:
    files = ["dataset.json", "labelsTr/b.nii.gz", "imagesTr/._a_0000.nii.gz", "imagesTs/c_0000.nii.gz"]
    files += [f"imagesTr/{name}_000{c}.nii.gz" for name in "ab" for c in (1, 0)]
    data = tree(tmp_path, files)
    (data / "dataset.json").write_text('{"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}')
    a, b = find_cases(site(data), 2)
    assert a == Case("a", "a", (data / "imagesTr/a_0000.nii.gz", data / "imagesTr/a_0001.nii.gz"), None)
    assert b.label == data / "labelsTr/b.nii.gz"
    assert look(site(data), 2).layout == "nnunet"


def test_msd(tmp_path: Path) -> None:
    data = tree(tmp_path, ["imagesTr/h_001.nii.gz", "labelsTr/h_001.nii.gz"])
    entries = [{"image": "./imagesTr/h_001.nii.gz", "label": "./labelsTr/h_001.nii.gz"}]
    (data / "dataset.json").write_text(json.dumps({"training": entries, "test": ["./imagesTs/h_002.nii.gz"]}))
    assert look(site(data), 1).layout == "msd"
    assert find_cases(site(data), 1) == [
        Case("h_001", "h_001", (data / "imagesTr/h_001.nii.gz",), data / "labelsTr/h_001.nii.gz")
    ]


BIDS = [
    "dataset_description.json", "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/ses-a/anat/sub-01_ses-a_T1w.json",
    "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz", "sub-02/anat/sub-02_acq-x_T1w.nii.gz",
    "sub-02/func/sub-02_task-rest_bold.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz",
    "derivatives/manual/sub-01/ses-a/anat/sub-01_ses-a_space-orig_desc-manual_dseg.nii.gz",
    "derivatives/manual/sub-01/ses-b/anat/sub-01_ses-b_label-lesion_mask.nii.gz",
    "derivatives/manual/sub-02/anat/sub-02_acq-x_dseg.nii.gz",
    "derivatives/fmriprep/sub-03/anat/sub-03_desc-brain_mask.nii.gz",
]  # fmt: skip


def test_bids_derivatives(tmp_path: Path) -> None:
    data = tree(tmp_path, BIDS)
    cases = find_cases(site(data), 1)
    assert look(site(data), 1).layout == "bids"
    assert [(c.id, c.patient, c.label.name if c.label else None) for c in cases] == [
        ("sub-01_ses-a", "sub-01", "sub-01_ses-a_space-orig_desc-manual_dseg.nii.gz"),
        ("sub-01_ses-b", "sub-01", "sub-01_ses-b_label-lesion_mask.nii.gz"),
        ("sub-02_acq-x", "sub-02", "sub-02_acq-x_dseg.nii.gz"),
        ("sub-03", "sub-03", None),  # a brain mask is no annotation
    ]
    assert cases[0].images == (data / BIDS[1],)


def test_bids_channels_go_by_name_never_by_order(tmp_path: Path) -> None:
    names = ["sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz",
             "derivatives/x/sub-01/anat/sub-01_dseg.nii.gz"]  # fmt: skip
    data = tree(tmp_path, names)
    (both,) = find_cases(site(data), 2, ("t1", "flair"))
    assert both.images == (data / names[0], data / names[1])
    (one,) = find_cases(site(data), 1, ("flair",))
    assert one.images == (data / names[1],)
    with pytest.raises(DataError, match="has the images FLAIR, T1w"):
        find_cases(site(data), 2, ("a", "b"))
    tree(data, ["derivatives/y/sub-01/anat/sub-01_dseg.nii.gz"])
    with pytest.raises(DataError, match="has 2 segmentations"):
        find_cases(site(data), 1, ("flair",))


def test_bids_label_that_names_its_image(tmp_path: Path) -> None:
    data = tree(tmp_path, ["sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_T2w.nii.gz",
                           "derivatives/labels/sub-1/anat/sub-1_T2w_label-cord_seg.nii.gz"])  # fmt: skip
    (case,) = find_cases(site(data), 1)
    assert case.images == (data / "sub-1/anat/sub-1_T2w.nii.gz",)


def test_folders_with_and_without_a_table_beside_them(tmp_path: Path) -> None:
    names = ["images/a.png", "images/b.png", "images/c.png", "images/notes.txt", "masks/a.tif", "masks/b_mask.png"]
    data = tree(tmp_path / "ge", names)
    a, b, c = find_cases(site(data), 1)
    assert (a.label, b.label, c.label) == (data / "masks/a.tif", data / "masks/b_mask.png", None)
    assert [case.patient for case in (a, b, c)] == ["a", "b", "c"]
    (tmp_path / "cases.csv").write_text("patient,image\np1,ge/images/a.png\np1,ge/images/b.png\n,ge/images/c.png\n")
    assert [case.patient for case in find_cases(site(data), 1)] == ["p1", "p1", "c"]
    tree(data, ["images/a.tif"])
    with pytest.raises(DataError, match="same name"):
        find_cases(site(data), 1)


def test_folders_with_a_file_per_channel(tmp_path: Path) -> None:
    data = tree(tmp_path, ["images/a_0001.nii", "images/a_0000.nii", "labels/a.nii"])
    (case,) = find_cases(site(data), 2)
    assert case.images == (data / "images/a_0000.nii", data / "images/a_0001.nii")
    # With one channel the digits belong to the name.
    assert [c.id for c in find_cases(site(data), 1)] == ["a_0000", "a_0001"]


CSV = """site,case,subject,image,label
ge,two,P1,i/2.nii.gz,l/2.nii.gz
ge,one,P1,i/1.nii.gz,
siemens,three,P2,"i/3a.nii;i/3b.nii",l/3.nii
"""


def test_csv(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("\ufeff" + CSV)
    one, three, two = find_cases(site(table), 1)
    assert one == Case("one", "P1", (tmp_path / "i/1.nii.gz",), None)
    assert two == Case("two", "P1", (tmp_path / "i/2.nii.gz",), tmp_path / "l/2.nii.gz")
    assert three.images == (tmp_path / "i/3a.nii", tmp_path / "i/3b.nii")
    assert [c.id for c in find_cases(site(table, where={"site": "ge"}), 1)] == ["one", "two"]
    assert [c.id for c in find_cases(site(table, where={"site": "ge", "case": "one"}), 1)] == ["one"]


def test_csv_without_names_and_with_columns_per_channel(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(
        "image_1;image_0;label\np1/b.nii;p1/a.nii;p1/s.nii\np2/b.nii;p2/a.nii;p2/s.nii\n"
    )
    first, second = find_cases(site(tmp_path), 2)
    assert first.images == (tmp_path / "p1/a.nii", tmp_path / "p1/b.nii")
    assert (first.id, second.id) == ("p1_a", "p2_a")
    assert second.patient == "p2_a"


@pytest.mark.parametrize("wrapped", [True, False])
def test_json_datalist(wrapped: bool, tmp_path: Path) -> None:
    rows = [{"image": ["a.nii", "b.nii"], "label": "l.nii", "patient": 7}, {"image": "c.nii", "fold": 1}]
    content = {"training": rows, "numTraining": 2} if wrapped else rows
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    assert look(site(tmp_path), 1).findings == ()
    cases = find_cases(site(tmp_path), 2)
    assert cases == [
        Case("a", "7", (tmp_path / "a.nii", tmp_path / "b.nii"), tmp_path / "l.nii"),
        Case("c", "c", (tmp_path / "c.nii",), None),
    ]
    assert [c.id for c in find_cases(site(tmp_path, where={"fold": "1"}), 2)] == ["c"]


def test_lists_that_a_datalist_keeps_apart_are_not_read(tmp_path: Path) -> None:
    apart = {"validation": [{"image": "v.nii", "label": "lv.nii"}], "testing": ["t.nii"],
             "test": [{"image": "x.nii", "label": "lx.nii"}, {"image": "y.nii", "label": "ly.nii"}]}  # fmt: skip
    table = tmp_path / "datalist.json"
    table.write_text(json.dumps({"training": [{"image": "a.nii", "label": "la.nii"}], **apart}))
    assert [case.id for case in find_cases(site(tmp_path), 1)] == ["a"]
    (finding,) = look(site(tmp_path), 1).findings
    assert (finding.code, finding.severity) == ("held-out", "warning")
    assert finding.what == f"{table}: 1 under `validation`, 1 under `testing`, 2 under `test` are left out"
    table.write_text(json.dumps(apart))
    with pytest.raises(DataError, match="no rows under `training`, only under validation, testing, test"):
        find_cases(site(table), 1)


@pytest.mark.parametrize(
    ("where", "message"),
    [({"sit": "ge"}, "Did you mean 'site'"), ({"site": "GE"}, "the column has ge, siemens"),
     ({"site": "siemens", "case": "one"}, "no row fulfils")],
)  # fmt: skip
def test_conditions_that_choose_nothing(where: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(CSV)
    with pytest.raises(DataError, match=message):
        find_cases(site(tmp_path, where=where), 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("t.csv", "", "no rows"), ("t.csv", "scan,label\na,b\n", "row 1 names no image"),
     ("t.csv", "case,image\nx,a.nii\nx,b.nii\n", "x stands in several rows"),
     ("t.json", "{", "cannot be read as a table"), ("t.json", '{"training": 3}', "cannot be read as a table"),
     ("t.csv", 'image\n"a', "cannot be read as a table")],
)  # fmt: skip
def test_tables_that_cannot_be_used(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        find_cases(site(tmp_path / name), 1)


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"imagesTr.*dataset\.json.*derivatives.*images/ and labels/.*cases\.csv"):
        find_cases(site(tmp_path), 1)
    with pytest.raises(DataError, match=r"Looked for: sub-\*[^;]*\.$"):
        find_cases(site(tmp_path, layout="bids"), 1)
    with pytest.raises(DataError, match="no such folder"):
        find_cases(site(tmp_path / "gone"), 1)
    tree(tmp_path, ["images/a.png"])
    with pytest.raises(DataError, match="`where` chooses rows of a table"):
        find_cases(site(tmp_path, where={"site": "x"}), 1)


def test_a_table_of_something_else_does_not_hide_the_folders(tmp_path: Path) -> None:
    tree(tmp_path, ["images/a.png"])
    (tmp_path / "cases.csv").write_text("patient,age\n1,50\n")
    assert look(site(tmp_path), 1).layout == "folders"
