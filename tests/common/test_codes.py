"""SNOMED CT codes against the 7,990 that pydicom's dictionary holds."""

from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.sr._snomed_dict import mapping

from common.codes import checks, value_of
from common.study import Study

MINIMAL: dict[str, Any] = {"name": "tiny", "plan": {"patch": [32, 32, 32]}, "training": {"steps": 10}}


def study(codes: dict[str, str]) -> Study:
    return Study.model_validate({**MINIMAL, "data": {"labels": ["liver", "spleen"], "codes": codes}})


def test_every_known_code_has_its_check_digit_and_no_neighbour_of_it_has() -> None:
    known = set(mapping["SRT"].values())
    assert len(known) > 7000
    assert all(map(checks, known))
    for code in sorted(known)[::50]:
        for digit in set("0123456789") - {code[-1]}:
            assert not checks(code[:-1] + digit)


def test_swapped_digits_are_found() -> None:
    assert not checks("10200040")
    assert not checks("12000004")


def test_a_study_may_carry_codes() -> None:
    codes = {"liver": "10200004 |Liver|", "spleen": "78961009 |Spleen|"}
    assert study(codes).data.codes == codes
    assert value_of(codes["liver"]) == "10200004"
    assert study(codes).digest() != study({}).digest()


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"liver": "10200005 |Liver|"}, "check digit does not fit"),
        ({"liver": "10200004"}, "should match pattern"),
        ({"liver": "10200004 |Liver| or so"}, "should match pattern"),
        ({"liver": "T-62000 |Liver|"}, "should match pattern"),
        ({"livr": "10200004 |Liver|"}, "is no label of the study. Did you mean 'liver'"),
        ({"liver": "10200004 |Liver|", "spleen": "10200004 |Spleen|"}, "one label only"),
    ],
)  # fmt: skip
def test_codes_that_cannot_be_are_refused(codes: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        study(codes)
