"""One data set cleaned by the allow list, item by item. Runs in the child with limits."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from client.data.export import attributes as listed
from client.data.export import codes
from client.data.export.policy import Policy
from client.data.export.vocabulary import OTHERWISE, UNORDERED, WORDS, is_number, maker
from client.data.secret import Secret

# UIDs that the standard has issued say nothing of a patient.
STANDARD = "1.2.840.10008."
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_OLDEST = 90


class Cleaner:
    """Makes the clean copy of data sets of one patient.

    Args:
        policy: What may stay.

    Attributes:
        removed: Elements left out so far, nested ones included.
        named: Whether a structure's name or number was written into one of them.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._secret = Secret(bytes.fromhex(policy.secret))
        self._known = frozenset(policy.known)
        self.removed = 0
        self.named = False

    def clean(self, source: Dataset) -> Dataset:
        """A new data set that holds nothing but what the allow list keeps of `source`; pixels are left out."""
        target = Dataset()
        for tag in sorted(source.keys()):
            element = None if tag.is_private else _interpreted(source, tag)
            value = None if element is None else self._kept(element, source)
            if element is not None and value is None and element.keyword in listed.EMPTIES:
                value = Sequence() if dictionary_VR(tag) == "SQ" else ""
            if element is None or value is None:
                self.removed += 1
            else:
                target.add(DataElement(tag, _vr(element), value, validation_mode=0))
        return target

    def uid(self, old: str) -> str:
        """The UID that stands for `old` in everything that this site exports; those of the standard stay."""
        old = str(old).strip(" \0")
        return old if old.startswith(STANDARD) else f"2.25.{self._secret.number(old)}"

    def _kept(self, element: DataElement, source: Dataset) -> object | None:
        """The value that `element` keeps, or None."""
        name = element.keyword
        for names, keep in self._rules():
            if name in names:
                return keep(element, source)
        return None

    def _rules(self) -> Iterable[tuple[Iterable[str], Callable[[DataElement, Dataset], object | None]]]:
        yield listed.NUMBERS, _numbers
        yield listed.SEQUENCES, self._items
        yield WORDS, _chosen
        yield listed.UIDS, self._uids
        yield listed.CODES, self._codes
        yield listed.CLASSES, _classes
        yield listed.DATES | listed.TIMES, self._moment
        yield listed.DUMMIES, lambda element, _: listed.DUMMIES[element.keyword]
        yield listed.STRUCTURES, self._structure
        yield listed.CHARACTERISTICS, self._characteristic
        yield ("Manufacturer",), lambda element, _: maker(_text(element)) or None
        yield ("LUTData",), _table

    def _items(self, element: DataElement, _: Dataset) -> Sequence | None:
        if not isinstance(element.value, Sequence):
            return None
        items = [self.clean(item) for item in element.value if self._resolves(item)]
        return Sequence(items) if items else None

    def _resolves(self, item: Dataset) -> bool:
        """Whether what `item` refers to is exported, too."""
        references = (item.get(name) for name in ("ReferencedSOPInstanceUID", "SeriesInstanceUID"))
        return all(str(uid).strip(" \0") in self._known for uid in references if uid)

    def _codes(self, element: DataElement, source: Dataset) -> Sequence | None:
        if not isinstance(element.value, Sequence) or not element.value:
            return None
        _, own = self._label(source)
        if own and element.keyword == "SegmentedPropertyTypeCodeSequence":
            return Sequence([codes.code(own, "SCT", self._policy.codes[own])])
        return Sequence([codes.clean(item, self._policy.codes) for item in element.value])

    def _uids(self, element: DataElement, _: Dataset) -> str | None:
        text = _text(element)
        return self.uid(text) if text else None

    def _structure(self, element: DataElement, source: Dataset) -> str:
        """The study's name for the structure; a number where it has none."""
        self.named = True
        label, _ = self._label(source)
        if label:
            return label
        number = source.get("SegmentNumber", source.get("ROINumber", ""))
        return f"{listed.STRUCTURES[element.keyword]} {number}" if is_number(str(number)) else "structure"

    def _label(self, source: Dataset) -> tuple[str, str]:
        """The study's label to which the segment or ROI `source` belongs, and its code; empty texts for none."""
        number = source.get("SegmentNumber", source.get("ROINumber", ""))
        label, code = self._policy.structures.get(str(number).strip(), ("", ""))
        return label, code

    def _characteristic(self, element: DataElement, _: Dataset) -> object | None:
        text = _text(element)
        if not self._policy.characteristics:
            return None
        if element.keyword == "PatientSex":
            return text if text in ("M", "F", "O") else None
        if element.keyword == "PatientAge":
            return _age(text)
        return element.value if is_number(text) else None

    def _moment(self, element: DataElement, _: Dataset) -> str | None:
        text = _text(element)
        if self._policy.days == 0:
            return listed.DUMMIES.get(element.keyword)
        if element.keyword in listed.TIMES:
            return text if _TIME.fullmatch(text) else None
        return _shifted(text, self._policy.days) or listed.DUMMIES.get(element.keyword)


def _interpreted(source: Dataset, tag: BaseTag) -> DataElement | None:
    """The element, or None if the standard does not know it or its value is not what its VR says."""
    if not dictionary_has_tag(tag):
        return None
    try:
        return source[tag]
    except Exception:  # noqa: BLE001 - whatever a wrong value makes pydicom raise, it is not kept
        return None


def _text(element: DataElement) -> str:
    return "" if element.value is None else str(element.value).strip(" \0")


def _vr(element: DataElement) -> str:
    """The dictionary's; where it leaves a choice of numbers, the file's if it is one of them."""
    choices = dictionary_VR(element.tag).split(" or ")
    return element.VR if element.VR in choices else choices[0]


def _values(element: DataElement) -> list[object]:
    value = element.value
    return list(value) if isinstance(value, MultiValue | list | tuple) else [] if value in (None, "") else [value]


def _numbers(element: DataElement, _: Dataset) -> object | None:
    """As it is, if it is nothing but numbers (or tags of the standard)."""
    values = _values(element)
    if dictionary_VR(element.tag) == "AT":
        return element.value if values and not any(Tag(v).is_private for v in values) else None  # type: ignore[arg-type]
    plain = all(not isinstance(v, bytes) and is_number(str(getattr(v, "original_string", v))) for v in values)
    return element.value if values and plain else None


def _chosen(element: DataElement, _: Dataset) -> object | None:
    """Words of the vocabulary. An unknown one goes, or is replaced where places count, or takes the others with it."""
    words, other = WORDS[element.keyword], OTHERWISE.get(element.keyword)
    found = [str(v).strip(" \0") for v in _values(element)]
    if element.keyword in UNORDERED:
        return [word for word in found if word in words] or None
    kept = [word if word in words else other for word in found]
    return kept if kept and None not in kept else None


def _classes(element: DataElement, _: Dataset) -> str | None:
    text = _text(element)
    return text if re.fullmatch(re.escape(STANDARD) + r"[\d.]+", text) else None


def _table(element: DataElement, source: Dataset) -> object | None:
    """A lookup table of exactly the length that its descriptor gives: room for nothing else."""
    descriptor = source.get("LUTDescriptor")
    if not descriptor or len(descriptor) != 3:
        return None
    entries = int(descriptor[0]) or 2**16
    value = element.value
    length = len(value) // 2 if isinstance(value, bytes) else len(_values(element))
    return value if length == entries else None


def _age(text: str) -> str | None:
    match = re.fullmatch(r"(\d{3})([DWMY])", text)
    if not match:
        return None
    years = int(match[1]) / {"D": 365.25, "W": 52.2, "M": 12, "Y": 1}[match[2]]
    return f"{_OLDEST:03}Y" if years >= _OLDEST else text


def _shifted(text: str, days: int) -> str | None:
    """A DICOM date (YYYYMMDD) or date and time, put back by `days`; None if it is not one. Zones are dropped."""
    match = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})(\d{0,6}(?:\.\d{1,6})?)(?:[-+]\d{4})?", text)
    if not match:
        return None
    try:
        earlier = datetime(int(match[1]), int(match[2]), int(match[3])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{earlier:%Y%m%d}{match[4]}"
