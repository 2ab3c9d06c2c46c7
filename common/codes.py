"""SNOMED CT codes as people write them: `10200004 |Liver|`."""

from typing import Annotated

from pydantic import AfterValidator, Field

_FORM = r"^[1-9]\d{5,17} \|[^|\r\n]{1,200}\|$"

# The dihedral group's multiplication, its permutation and inverse: Verhoeff's check (SNOMED CT's identifiers end in
# such a digit; SNOMED CT Technical Implementation Guide, "Check-digit").
_TIMES = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_TURN = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")


def checks(identifier: str) -> bool:
    """Whether the last digit of a SNOMED CT identifier fits the others, as it does unless it is mistyped."""
    total = 0
    for place, digit in enumerate(reversed(identifier)):
        total = int(_TIMES[total][int(_TURN[place % 8][int(digit)])])
    return total == 0


def value_of(code: str) -> str:
    """The number alone of `10200004 |Liver|`."""
    return code.split(" ", 1)[0]


def meaning_of(code: str) -> str:
    """The meaning alone of `10200004 |Liver|`."""
    return code.split("|")[1]


def _checked(code: str) -> str:
    if not checks(value_of(code)):
        raise ValueError(f"{value_of(code)} is no SNOMED CT code: its check digit does not fit; look it up again")
    return code


SnomedCode = Annotated[
    str,
    Field(pattern=_FORM, description="a SNOMED CT code with its meaning, such as 10200004 |Liver|"),
    AfterValidator(_checked),
]
