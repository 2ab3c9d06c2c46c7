"""Coded concepts in exported files: public dictionaries only, in their own words. Runs in the child with limits."""

from collections.abc import Mapping
from typing import cast

from pydicom.dataset import Dataset
from pydicom.sr import _concepts_dict as dictionary
from pydicom.sr import _snomed_dict as retired

# Designator in the file -> pydicom's name of the dictionary; the SNOMED RT spellings are translated to SNOMED CT.
_SCHEMES = {"SCT": "SCT", "DCM": "DCM", "UCUM": "UCUM", "SRT": "SRT", "SNM3": "SRT", "99SDM": "SRT"}
# Stands where a code is wanted and none can be kept.
TISSUE = ("85756007", "SCT", "Tissue")


def _meanings(scheme: str) -> dict[str, str]:
    concepts = cast("dict[str, dict[str, tuple[str, list[int]]]]", dictionary.concepts[scheme])
    found = [(value, entry[0]) for concept in concepts.values() for value, entry in concept.items()]
    # Of several meanings of one code the shortest, which stands last here and counts.
    return dict(sorted(found, key=lambda pair: (-len(pair[1]), pair[1])))


_MEANINGS = {scheme: _meanings(scheme) for scheme in ("SCT", "DCM", "UCUM")}


def clean(item: Dataset, known: Mapping[str, str]) -> Dataset:
    """`item` as a code of a public dictionary, with the dictionary's meaning; `TISSUE` if it is in none.

    The meaning of the file is never kept: it is free text.

    Args:
        item: An item of a code sequence.
        known: SNOMED CT codes of the study -> meaning; kept, too.
    """
    value, scheme = str(item.get("CodeValue", "")).strip(), str(item.get("CodingSchemeDesignator", "")).strip()
    return code(*(_looked_up(value, _SCHEMES.get(scheme, ""), known) or TISSUE))


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning[:64]
    return item


def _looked_up(value: str, scheme: str, known: Mapping[str, str]) -> tuple[str, str, str] | None:
    if scheme == "SRT":
        value, scheme = retired.mapping["SRT"].get(value, ""), "SCT"
    if scheme == "SCT" and value in known:
        return value, scheme, known[value]
    meaning = _MEANINGS.get(scheme, {}).get(value)
    return (value, scheme, meaning) if meaning else None
