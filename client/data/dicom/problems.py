"""Why a DICOM file cannot be read, in words that are known beforehand."""

from common.errors import DataError

# Word -> what it says to the people of the site.
REASONS = {
    "damaged": "damaged or cut off",
    "missing": "cannot be opened",
    "not-dicom": "not a DICOM file",
    "too-slow": "takes too long to read",
    "too-large": "wants more memory than it may have",
    "transfer-syntax": "compressed in a way that cannot be read",
    "crashed": "crashed its decoder",
    "changed": "has changed since it was listed",
    "unsupported": "of a kind that cannot be read",
    "narrow": "holds values beyond the type that was tried",
    "header": "has a header that cannot be right",
}

# Not said to people: the reader tries again with a wider type.
RETRIED = ("narrow",)

AGAIN = "Have the whole series sent or exported again; compare the count with the PACS."
# What to do; `AGAIN` for the other reasons.
REMEDIES = {
    "transfer-syntax": "Install the package that is named, or have the files exported uncompressed.",
    "too-slow": "Have the file exported again; a file that needs this long is damaged, or made to do harm.",
    "crashed": "Have the file exported again, uncompressed.",
    "too-large": "Have the file exported again; the sizes in its header are not those of a scan.",
    "missing": "Check that the files are there and can be read by this account.",
    "changed": "Run the command again once nothing writes to the folder.",
    "unsupported": "Have it exported in another form.",
}


class Unreadable(DataError):  # noqa: N818
    """A DICOM file that cannot be read.

    Its `code` is that of every DataError, as only that may leave a site.

    Attributes:
        reason: A word of `REASONS`: "damaged", "too-slow", "too-large", "transfer-syntax", "crashed", …
        what: Details without the file's name, patient data or UIDs; may be empty.
    """

    def __init__(self, reason: str, what: str = "") -> None:
        super().__init__(f"{REASONS[reason]}{f' ({what})' if what else ''}")
        self.reason = reason
        self.what = what
