"""What a site's `series` leaves out, or gets wrong, is said; on volumes described here."""

from collections.abc import Sequence
from pathlib import Path

from client.data.dicom.objects import Item, Scan
from client.data.dicom_layout import dicom_cases
from client.data.volume import Finding, Stack
from client.site import SeriesRule

MATRIX = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))


def volume(series: str, description: str, patient: str = "p") -> Stack:
    return Stack(
        files=(Path(f"/scans/{patient}/{series}/1"),), frames=(0,), instances=(f"{series}.1",), series=series,
        study="1", frame_of_reference=("9",), matrix=MATRIX, shape=(4, 4, 1), modality="MR", description=description,
        patient=patient,
    )  # fmt: skip


def segmentation(series: str, description: str = "") -> Item:
    return Item(Path(f"/scans/{series}.dcm"), "seg", "SEG", "", f"{series}.7", f"{series}.8", "1", "p", description,
                referenced_instances=(f"{series}.1",))  # fmt: skip


def codes(findings: Sequence[Finding]) -> list[str]:
    return [finding.code for finding in findings]


TRA, ADC = volume("1.1", "T2 [tra]"), volume("1.2", "ADC")


def test_an_annotated_volume_that_no_rule_chooses_is_said() -> None:
    rules = {"image": SeriesRule(description="t2*")}
    cases, findings = dicom_cases(Scan((TRA, ADC), (segmentation("1.2"),), ()), rules, ["image"])
    # What was drawn on the other series is no label of this one.
    assert [(case.id, case.label) for case in cases] == [(TRA.id, None)]
    assert [(f.code, f.case) for f in findings] == [("dicom-not-chosen", ADC.id)]
    assert dicom_cases(Scan((TRA, ADC), (segmentation("1.1"),), ()), rules, ["image"])[1] == []


def test_a_label_rule_that_fits_nothing_is_said() -> None:
    rules = {"label": SeriesRule(description="*final*")}
    cases, findings = dicom_cases(Scan((TRA,), (segmentation("1.1", "draft"),), ()), rules, ["image"])
    assert [case.label for case in cases] == [None]
    assert [(f.code, f.case) for f in findings] == [("dicom-label-rule", TRA.id)]
    both = segmentation("1.1", "draft"), segmentation("1.1", "Final 2")
    cases, findings = dicom_cases(Scan((TRA,), both, ()), rules, ["image"])
    assert ([case.label for case in cases], findings) == ([both[1].file], [])


def test_a_rule_for_no_channel_is_said() -> None:
    _, findings = dicom_cases(Scan((TRA,), (), ()), {"imge": SeriesRule(description="x")}, ["image"])
    assert codes(findings) == ["dicom-unknown-rule"]
    assert "Did you mean 'image'" in findings[0].what
    # Without a study nothing is known of its channels.
    assert dicom_cases(Scan((TRA,), (), ()), {"t2": SeriesRule(description="x")}, [])[1] == []


def test_a_description_with_brackets_fits_itself() -> None:
    rules = {"image": SeriesRule(description="T2 [tra]")}
    cases, _ = dicom_cases(Scan((TRA, ADC), (), ()), rules, ["image"])
    assert [case.id for case in cases] == [TRA.id]


def test_a_series_of_two_patients_is_nobodys_case() -> None:
    one, other = volume("1.1", "T2", "p"), volume("1.1", "T2", "q")
    cases, findings = dicom_cases(Scan((one, other, ADC), (segmentation("1.2"),), ()), {}, ["image"])
    assert [case.id for case in cases] == [ADC.id]
    assert [(f.code, f.severity, f.case) for f in findings] == [("dicom-several-patients", "error", one.id)]
