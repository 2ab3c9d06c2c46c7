"""What a label file with names holds: segments, their coded concepts, and one mask each on the image's grid."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.data.volume import Finding
from common.errors import DataError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8.8).

    Attributes:
        value: The code; SNOMED CT's own number where the file has its old SRT form.
        scheme: Coding scheme designator, e.g. "SCT".
        meaning: In words.
    """

    value: str
    scheme: str
    meaning: str = ""


@dataclass(frozen=True)
class Segment:
    """One named structure of a file.

    Attributes:
        number: Of the segment or ROI in its file.
        name: Segment label or ROI name, without spaces around it.
        code: The segmented property's type: which organ or finding.
        category: The property's category: anatomical structure, tissue, abnormality …
        drawn: False if the file lists the name but holds nothing of it.
    """

    number: int
    name: str
    code: Code | None = None
    category: Code | None = None
    drawn: bool = True


@dataclass(frozen=True)
class Note:
    """A finding whose case is not known yet; the attributes are those of `Finding`."""

    code: str
    severity: str
    what: str
    remedy: str

    def of(self, case: str) -> Finding:
        """The finding of `case`."""
        return Finding(self.code, self.severity, case, self.what, self.remedy)


class Misfit(DataError):  # noqa: N818
    """A label file that can be read but not put on the image's grid, or not mapped to the study's labels.

    Attributes:
        note: What the gate says of it.
    """

    def __init__(self, code: str, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.note = Note(code, "error", what, remedy)


class Structures(ABC):
    """The named structures of one file, for one image.

    Attributes:
        segments: In the file's order.
        shape: Of the image's grid.
        notes: What is odd about the file, without repetition; grows as masks are made.
    """

    def __init__(self, segments: tuple[Segment, ...], shape: tuple[int, ...]) -> None:
        self.segments = segments
        self.shape = shape
        self.notes: dict[Note, None] = {}

    @abstractmethod
    def mask(self, number: int) -> Mask:
        """The segment `number` on the image's grid, `(X, Y, Z)` (of a picture `(H, W)`).

        Raises:
            Misfit: It cannot be put there.
        """

    def warn(self, code: str, what: str, remedy: str) -> None:
        """Note something odd, once."""
        self.notes[Note(code, "warning", what, remedy)] = None
