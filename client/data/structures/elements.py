"""Elements of a DICOM data set as plain values, however they are missing or wrong. Only for child processes."""

import math
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from client.data.dicom.problems import Unreadable
from client.data.structures.snomed import current

# Longer texts are no labels.
_TEXT = 1024


def text(ds: Dataset, name: str) -> str:
    """The element `name` as text without spaces around it; empty if it is missing."""
    value = ds.get(name)
    return "" if value is None else str(value).strip(" \0\n\r\t")[:_TEXT]


def numbers(ds: Dataset, name: str, count: int | None = None) -> list[float] | None:
    """The finite numbers of the element `name`; None if it is missing or empty.

    Raises:
        Unreadable: Not numbers, or not `count` of them.
    """
    value = ds.get(name)
    if value is None or value == "" or (isinstance(value, Sequence) and not len(value)):
        return None
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    try:
        found = [float(v) for v in several]
    except (TypeError, ValueError):
        raise Unreadable("header", name) from None
    if not all(map(math.isfinite, found)) or (count is not None and len(found) != count):
        raise Unreadable("header", name)
    return found


def number(ds: Dataset, name: str, default: int | None = None) -> int:
    """The whole number of the element `name`, or `default`; raises Unreadable if it is another."""
    found = numbers(ds, name, 1)
    if found is None and default is not None:
        return default
    if found is None or found[0] != int(found[0]):
        raise Unreadable("header", name)
    return int(found[0])


def sequence(ds: Dataset, name: str) -> list[Dataset]:
    """The items of the sequence `name`; none if it is missing."""
    value = ds.get(name)
    if value is None:
        return []
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise Unreadable("header", name)
    return list(value)


def first(ds: Dataset, name: str) -> Dataset:
    """The first item of the sequence `name`; an empty data set if there is none."""
    items = sequence(ds, name)
    return items[0] if items else Dataset()


def code_in(ds: Dataset, name: str) -> dict[str, Any] | None:
    """The coded concept in the sequence `name` (PS3.3 8.8): value, scheme, meaning.

    SNOMED's old identifiers (scheme SRT, as T-62000) become the numbers by which SNOMED CT knows them now.
    """
    item = first(ds, name)
    value = text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
    if not value:
        return None
    scheme = text(item, "CodingSchemeDesignator")
    value, scheme = current(value, scheme)
    return {"value": value, "scheme": scheme, "meaning": text(item, "CodeMeaning")}
