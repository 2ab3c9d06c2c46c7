"""What looks like a patient's identity in free text: names, dates, numbers. Pure; never gives back what it found."""

import re
from collections.abc import Iterable

# DICOM writes a person's name as family^given (PS3.5 6.2.1).
_NAME = re.compile(r"[^\W\d_]{2,}[^\W\d_'’. -]*\^[^\W\d_]+")
_DAY, _MONTH, _YEAR = r"(0[1-9]|[12]\d|3[01])", r"(0[1-9]|1[0-2])", r"(19|20)\d\d"
_DATE = re.compile(
    "|".join(
        rf"(?<![\d.]){first}(?P<s{n}>[-_./]{many}){second}(?P=s{n}){third}(?!\d)"
        for n, (first, second, third, many) in enumerate(
            ((_YEAR, _MONTH, _DAY, "?"), (_DAY, _MONTH, _YEAR, ""), (_MONTH, _DAY, _YEAR, ""))
        )
    )
)
# A word for a number of a person, and a number; or a number alone, as long as hospitals' are. UIDs have dots.
_LABELLED = re.compile(
    r"(?<![a-z])(mrn|pid|ssn|nhs|cpr|fnr|pat(ient)?[ _-]?(id|no|nr|number))[ _:=#-]*(?=[a-z0-9-]*\d{3})[a-z0-9-]{4,}",
    re.I,
)
_NUMBER = re.compile(r"(?<![A-Za-z0-9])(?<!\d\.)\d{7,12}(?![A-Za-z0-9]|\.\d)")
_BORN = re.compile(r"(?<![a-z])(birth|born|dob|geb)", re.I)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[a-z]{2,}", re.I)

KINDS = ("name", "date", "number", "mail")


def kinds_in(text: str) -> set[str]:
    """Which of `KINDS` stand in `text`; a number that is a date counts as a date."""
    found = set()
    if _NAME.search(text):
        found.add("name")
    if _DATE.search(text) or _BORN.search(text):
        found.add("date")
    if _LABELLED.search(text) or _NUMBER.search(_DATE.sub(" ", text)):
        found.add("number")
    if _MAIL.search(text):
        found.add("mail")
    return found


def repeats(text: str, values: Iterable[str]) -> bool:
    """Whether a name, number or date of `values` stands in `text`, in whatever case, whatever is between its parts.

    Parts of less than three letters or four digits are no evidence, and neither are words that stand for no name.
    """
    words = set(_words(text))
    joined = "".join(_words(text))
    for value in values:
        parts = [p for p in _words(value) if p not in _NO_NAMES]
        whole = "".join(parts)
        if len(whole) >= 6 and whole in joined:
            return True
        if any((p.isdigit() and len(p) >= 4) or (not p.isdigit() and len(p) >= 3) for p in parts if p in words):
            return True
    return False


# Stand where a name was, or in names of many.
_NO_NAMES = frozenset(
    [
        *("anon", "anonymous", "anonymized", "anonymised", "patient", "subject", "case", "test", "phantom", "unknown"),
        *("none", "name", "the", "von", "van", "der", "del"),
    ]
)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]
