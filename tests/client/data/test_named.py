"""The label contract: which structure of a file is which label, what is refused, what is not annotated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from client.data.labels import label_map
from client.data.named import NamedLabels, label_volume, named_labels
from client.data.structures import Code, Misfit, Segment
from client.data.volume import Volume
from client.site import SiteConfig
from common.documents import Document
from common.errors import StudyError
from common.study_plan import Data
from tests.client.data.structures.test_slicer import AFFINE, header, nrrd, segment

DATA = Data(labels=("liver", "tumour", "kidney_left"), codes={"liver": "10200004 |Liver|"})
LIVER, CYST = Code("10200004", "SCT", "Liver"), Code("12494005", "SCT", "Cyst")
ABNORMAL = Code("49755003", "SCT", "Morphologically abnormal structure")


def rules(text: str = "", data: Data = DATA) -> NamedLabels:
    site = SiteConfig.model_validate({"name": "s", "data": "x", **(yaml.safe_load(text) or {})})
    return named_labels(data, site)


def assigned(text: str, *segments: Segment) -> list[str | None]:
    return list(rules(text).assign(segments).values())


@pytest.mark.parametrize(
    ("text", "one", "label"),
    [
        ("", Segment(1, "Leber", LIVER), "liver"),  # the study's code
        ("", Segment(1, "Liver"), "liver"),  # the label's own name
        ("", Segment(1, "Kidney Left"), "kidney_left"),
        ("labels: {tumour: 4}", Segment(4, "x"), "tumour"),
        ("labels: {tumour: [3, 4]}", Segment(4, "x"), "tumour"),
        ("labels: {tumour: {from: 3, to: 9}}", Segment(4, "x"), "tumour"),
        ("labels: {tumour: 'GTV*'}", Segment(4, "gtv-1"), "tumour"),
        ("labels: {tumour: ['GTV [1]', CTV]}", Segment(4, "GTV [1]"), "tumour"),
        ("labels: {tumour: {code: 12494005}}", Segment(4, "x", CYST), "tumour"),
        ("labels: {tumour: {category: '49755003'}}", Segment(4, "x", CYST, ABNORMAL), "tumour"),
        ("labels: {tumour: {code: '12494005', category: '49755003'}}", Segment(4, "x", CYST, ABNORMAL), "tumour"),
        ("labels: {tumour: [2, 'GTV*', {code: 12494005}]}", Segment(4, "x", CYST), "tumour"),
        ("ignored: ['Couch*']", Segment(4, "CouchSurface"), None),
        ("ignored: [4]", Segment(4, "x"), None),
        ("ignored: ['*']", Segment(4, "x"), None),
        ("ignored: ['*']", Segment(4, "liver"), "liver"),
        # An exact name goes before a pattern, and before being ignored by one.
        ("labels: {liver: 'Liver*', tumour: 'Liver tumour'}", Segment(4, "Liver tumour"), "tumour"),
        ("labels: {liver: 'Liver*'}\nignored: ['Liver old']", Segment(4, "Liver old"), None),
        # Not annotated: its name belongs to nobody, unless it is ignored.
        ("labels: {tumour: unlabelled}\nignored: [tumour]", Segment(4, "Tumour"), None),
        # Named, but nothing of it is drawn.
        ("", Segment(4, "PTV", drawn=False), None),
    ],
)  # fmt: skip
def test_what_a_structure_is(text: str, one: Segment, label: str | None) -> None:
    assert assigned(text, one) == [label]


@pytest.mark.parametrize(
    ("text", "one", "words"),
    [
        ("", Segment(4, "Livr"), r"'Livr' \(number 4\) belongs to no label \(near: liver\); the file has 'Livr'"),
        ("labels: {tumour: 'GTV primary*'}", Segment(4, "GVT primary"), r"near: GTV primary\*"),
        ("", Segment(4, "x", CYST), "coded 12494005 Cyst belongs to no label"),
        ("labels: {tumour: unlabelled}", Segment(4, "tumour"), "belongs to no label"),
        ("labels: {tumour: {code: '12494005', category: '1'}}", Segment(4, "x", CYST, ABNORMAL), "belongs to no label"),
        ("", Segment(1, "Spleen"), "belongs to no label"),  # in files with names, a number alone is no rule
        ("labels: {liver: 'Liv*', tumour: '*er'}", Segment(4, "Liver"), "belongs to liver and to tumour"),
        ("labels: {liver: 4, tumour: Cyst}", Segment(4, "Cyst"), "belongs to liver and to tumour"),
        ("labels: {liver: {code: 12494005}, tumour: 'C*'}", Segment(4, "Cyst", CYST), "belongs to liver and to tumour"),
        ("", Segment(4, ""), "the nameless number 4 belongs to no label"),
    ],
)  # fmt: skip
def test_what_is_not_mapped_is_an_error_that_names_it(text: str, one: Segment, words: str) -> None:
    with pytest.raises(Misfit, match=words) as caught:
        assigned(text, one)
    assert caught.value.note.code == "label-name"


OTHER, OLD = Code("10200004", "99CLINIC", "Table"), Code("T-62000", "SRT", "Liver")


@pytest.mark.parametrize(
    ("text", "code", "found"),
    [
        ("", LIVER, "liver"),
        ("", OTHER, None),  # the same number in another scheme
        ("labels: {tumour: {code: 10200004}, liver: 1}", OTHER, None),
        ("labels: {tumour: {code: T-62000}, liver: 9}", LIVER, "tumour"),
        ("labels: {tumour: {code: 'T1'}}", Code("T1", "99CLINIC", "Tumour"), "tumour"),
    ],
)
def test_codes_are_compared_with_their_scheme(text: str, code: Code, found: str | None) -> None:
    assert rules(text).label_of(Segment(4, "x", code)) == found


@pytest.mark.parametrize(
    ("text", "one", "other"),
    [
        ("", Segment(1, "tumour", LIVER), "liver"),
        ("labels: {tumour: 'GTV*', liver: 9}", Segment(1, "GTV 1", LIVER), "liver"),
        ("labels: {kidney_left: {code: 12494005}}", Segment(1, "tumour", CYST), "kidney_left"),
        ("", Segment(1, "liver", LIVER), None),
        ("", Segment(1, "tumour", CYST), None),
        ("", Segment(1, "tumour", OTHER), None),
        ("", Segment(1, "tumour"), None),
    ],
)
def test_a_code_that_contradicts_the_name_is_seen(text: str, one: Segment, other: str | None) -> None:
    label = rules(text).label_of(one)
    assert label is not None
    assert rules(text).contradicted(one, label) == other


def test_one_code_for_both_sides_contradicts_neither() -> None:
    both = rules("labels: {tumour: [GTV, {code: 12494005}], liver: [Leber, {code: 12494005}]}")
    assert both.contradicted(Segment(1, "GTV", CYST), "tumour") is None


def test_a_contradiction_is_a_warning_and_old_codes_are_known(tmp_path: Path) -> None:
    terms = "Segmentation category and type~SRT^T-D0050^Tissue~SRT^T-62000^Liver~^^~Anatomic codes~^^~^^|"
    array = np.zeros((4, 4, 4), np.uint8)
    array[1, 1, 1] = 1
    fields = segment(0, "tumour", 1, 0, Tags=f"TerminologyEntry:{terms}")
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header(array, fields))
    image = Volume(np.zeros((1, 4, 4, 4), np.int16), AFFINE)
    found = label_volume(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", image, rules(), case="c")
    odd = [f for f in found.findings if f.code == "label-code"]
    assert [(f.severity, f.case) for f in odd] == [("warning", "c")]
    assert "'tumour' (number 1) counts as tumour, and its code is that of liver" in odd[0].what
    assert found.array.max() == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labels: {livr: 1}", "Did you mean 'liver'"),
        ("priority: [tumor]", "priority: tumor: the study has no such label.*Did you mean 'tumour'"),
        ("labels: {liver: [1, unlabelled]}", "stands alone"),
        ("labels: {liver: unlabelled, tumour: unlabelled, kidney_left: unlabelled}", "a site needs one"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        rules(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labels: {a: {kode: 1}}", "labels.a.kode: unknown key"),
        ("labels: {a: {}}", "labels.a: give code or category"),
        ("labels: {a: 1.5}", "must be a whole number"),
        ("labels: {a: {from: 5, to: 1}}", r"from \(5\) must not be above to \(1\)"),
        ("labels: {a: ''}", "at least 1"),
        ("labels: {a: []}", "at least 1"),
        ("ignored: Couch*", "must be a list"),
    ],
)  # fmt: skip
def test_forms_of_rules_that_are_none(text: str, words: str) -> None:
    document = Document(Path("site.yaml"), f"name: s\ndata: x\n{text}\n")
    with pytest.raises(StudyError, match=words) as caught:
        document.validate(SiteConfig, document.data)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("site.yaml:3: ")


def test_masks_of_numbers_know_names_not_and_ignored_values_are_background() -> None:
    site = SiteConfig.model_validate(
        {"name": "s", "data": "x", "ignored": [9, "Couch*"],
         "labels": {"liver": [3, "Liver*"], "tumour": "unlabelled", "kidney_left": "Kidney"}}
    )  # fmt: skip
    numbers = label_map(DATA.labels, site.labels, 255, site.ignored)
    stored = np.array([0, 2, 3, 9, 255])
    np.testing.assert_array_equal(numbers.apply(stored), [0, 0, 1, 0, 255])
    assert numbers.unknown(stored) == [2]
    assert numbers.unlabelled == ("tumour",)
    with pytest.raises(StudyError, match=r"stored value 3 belongs to .*ignored"):
        label_map(DATA.labels, site.labels, None, [3])


IMAGE = Volume(np.zeros((1, 12, 10, 8), np.int16), AFFINE)


def layers(path: Path, **masks: tuple[slice, ...]) -> Path:
    """A .seg.nrrd with a box per name, each in a layer of its own."""
    array = np.zeros((len(masks), 12, 10, 8), np.uint8)
    fields: dict[str, Any] = {}
    for layer, (name, box) in enumerate(masks.items()):
        array[(layer, *box)] = 1
        fields |= segment(layer, name, 1, layer)
    nrrd.write(str(path), array, header(array, fields))
    return path


A, B = (slice(1, 6), slice(1, 6), slice(1, 6)), (slice(4, 9), slice(4, 9), slice(4, 9))


def test_a_label_map_with_what_is_not_annotated(tmp_path: Path) -> None:
    path = layers(tmp_path / "a.seg.nrrd", Liver=A, Left=(slice(8, 11),) * 3, Table=B)
    text = "labels: {kidney_left: Left, tumour: unlabelled}\nignored: [Table]"
    array, unlabelled, findings = label_volume(path, tmp_path / "scan.nii", IMAGE, rules(text), case="c1")
    expected = np.zeros((12, 10, 8), np.uint8)
    expected[A] = 1
    expected[8:11, 8:11, 8:11] = 3
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == np.uint8
    assert (unlabelled, findings) == (("tumour",), ())


def test_structures_that_overlap_need_a_priority(tmp_path: Path) -> None:
    path = layers(tmp_path / "a.seg.nrrd", Liver=A, Tumour=B)
    quiet = "labels: {kidney_left: unlabelled}\n"
    array, _, (finding,) = label_volume(path, tmp_path / "scan.nii", IMAGE, rules(quiet), case="c1")
    assert (finding.code, finding.severity, finding.case) == ("label-overlap", "error", "c1")
    assert "liver and tumour overlap in 8 voxels" in finding.what
    assert str(path) in finding.what
    assert not array.any()
    for order, first, second in (("[tumour]", (B, 2), (A, 1)), ("[liver, tumour]", (A, 1), (B, 2))):
        text = f"{quiet}priority: {order}"
        array, _, findings = label_volume(path, tmp_path / "scan.nii", IMAGE, rules(text))
        expected = np.zeros((12, 10, 8), np.uint8)
        expected[second[0]] = second[1]
        expected[first[0]] = first[1]
        np.testing.assert_array_equal(array, expected)
        assert findings == ()


def test_structures_of_one_label_may_overlap(tmp_path: Path) -> None:
    path = layers(tmp_path / "a.seg.nrrd", Liver=A, Lobe=B)
    text = "labels: {liver: [Liver, Lobe], tumour: unlabelled, kidney_left: unlabelled}"
    array, _, findings = label_volume(path, tmp_path / "scan.nii", IMAGE, rules(text))
    assert int(array.sum()) == 125 + 100 - 8
    assert findings == ()


def test_absent_and_hidden_labels_are_said(tmp_path: Path) -> None:
    inner = (slice(2, 4),) * 3
    path = layers(tmp_path / "a.seg.nrrd", Liver=A, Tumour=inner)
    array, _, findings = label_volume(path, tmp_path / "scan.nii", IMAGE, rules("priority: [liver, tumour]"))
    assert set(np.unique(array)) == {0, 1}
    assert {(f.code, f.severity) for f in findings} == {("label-hidden", "warning"), ("label-absent", "warning")}


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: layers(path, Livr=A), "label-name"),
        (lambda path: path.write_bytes(b"NRRD0004\n"), "unreadable"),
        (lambda path: None, "unreadable"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_a_finding(tmp_path: Path, make: Any, code: str) -> None:
    make(tmp_path / "a.seg.nrrd")
    array, _, findings = label_volume(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii", IMAGE, rules(), case="c1")
    assert [(f.code, f.severity, f.case) for f in findings] == [(code, "error", "c1")]
    assert array.shape == (12, 10, 8)
    assert not array.any()
    assert findings[0].remedy


def test_the_key_tells_rules_apart() -> None:
    texts = ["", "labels: {liver: 4}", "labels: {liver: 'A*'}", "labels: {liver: {code: 1}}", "ignored: [4]",
             "labels: {liver: unlabelled}", "priority: [liver]", "labels: {liver: {category: 1}}"]  # fmt: skip
    keys = [repr(rules(text).key()) for text in texts]
    assert len(set(keys)) == len(keys)
    assert rules("", Data(labels=DATA.labels)).key() != rules("").key()
