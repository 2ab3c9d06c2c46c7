"""Which volumes of a folder of DICOM are cases, and which segmentation belongs to which; on real series."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.data.dicom.objects import Item, Scan
from client.data.dicom.scan import scan
from client.data.dicom_layout import dicom_cases
from client.data.volume import Case, Stack
from client.site import SeriesRule

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def hearts(fedscan_data: Path) -> Scan:
    return scan(fedscan_data / "cardiac-mr-dicom")


@pytest.fixture(scope="module")
def prostate(fedscan_data: Path) -> Scan:
    return scan(fedscan_data / "prostate-mr-study-dicom")


def rule(**what: str) -> SeriesRule:
    return SeriesRule.model_validate(what)


def test_each_segmentation_finds_the_phase_it_was_drawn_on(hearts: Scan) -> None:
    cases, findings = dicom_cases(hearts, {"label": rule(modality="SEG")}, ["image"])
    assert findings == []
    # Three patients, end-diastole and end-systole each, out of 24 volumes in three series.
    assert len(cases) == 6
    assert len({case.patient for case in cases}) == 3
    items = {item.file: item for item in hearts.items}
    slices = {instance for stack in hearts.stacks for instance in stack.instances}
    for case in cases:
        (image,) = case.images
        assert isinstance(image, Stack)
        assert case.label is not None
        drawn = slices & set(items[case.label].referenced_instances)
        assert drawn
        assert drawn <= set(image.instances)


def test_several_segmentations_of_one_volume_are_refused_and_named(hearts: Scan) -> None:
    cases, findings = dicom_cases(hearts, {}, ["image"])
    assert len(cases) == 3
    assert {f.code for f in findings} == {"dicom-several-labels"}
    assert all("1 RTSTRUCT, 1 SEG" in f.what or "1 SEG, 1 RTSTRUCT" in f.what for f in findings)
    assert all("`label`" in f.remedy for f in findings)


def test_a_label_whose_images_are_elsewhere(hearts: Scan) -> None:
    nobody = replace(hearts.items[0], referenced_series=("1.2.3",), referenced_instances=("1.2.3.4",))
    cases, findings = dicom_cases(Scan(hearts.stacks[:1], (nobody,), ()), {}, ["image"])
    assert [f.code for f in findings] == ["dicom-no-image"]
    assert [case.label for case in cases] == [None]


def test_an_examination_without_labels_is_cases_without_annotation(prostate: Scan) -> None:
    cases, findings = dicom_cases(prostate, {}, ["image"])
    assert findings == []
    assert len(cases) == 9
    assert {case.label for case in cases} == {None}
    chosen, _ = dicom_cases(prostate, {"image": rule(description="*T2*_tra")}, ["image"])
    assert [_stack(case).description for case in chosen] == ["t2_tse_tra"]


def test_channels_are_chosen_by_rules(prostate: Scan) -> None:
    rules = {"t2": rule(description="t2_tse_tra"), "adc": rule(description="*_ADC"),
             "b800": rule(modality="mr", volume="b=800")}  # fmt: skip
    cases, findings = dicom_cases(prostate, rules, ["t2", "adc", "b800"])
    assert findings == []
    (case,) = cases
    assert [image.name for image in case.images if isinstance(image, Stack)] == ["", "", "b=800"]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({}, "no rule says which series is t2"),
        ({"t2": rule(description="t2*"), "adc": rule(description="*_ADC")}, "3 volumes fit the rule of the channel t2"),
        ({"t2": rule(description="flair"), "adc": rule(description="*")}, "0 volumes fit the rule of the channel t2"),
    ],
)
def test_a_channel_that_is_not_one_volume(prostate: Scan, rules: dict[str, SeriesRule], says: str) -> None:
    cases, findings = dicom_cases(prostate, rules, ["t2", "adc"])
    assert cases == []
    (finding,) = findings
    assert finding.code == "dicom-channel"
    assert says in finding.what


def _stack(case: Case) -> Stack:
    (image,) = case.images
    assert isinstance(image, Stack)
    return image


def test_items_of_no_interest_are_no_labels(hearts: Scan) -> None:
    report = replace(hearts.items[0], kind="other")
    assert isinstance(report, Item)
    cases, findings = dicom_cases(Scan(hearts.stacks, (report,), ()), {}, ["image"])
    assert findings == []
    assert all(case.label is None for case in cases)
