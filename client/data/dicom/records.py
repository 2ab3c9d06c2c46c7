"""What is known of a DICOM file without its pixels: the answers of the child processes, checked."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

Number = float | int
Mark = str | Number

# Raise it when the same file would give another header: what a site has kept is then read again.
FORMAT = 2


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Frame(_Record):
    """One slice: a single-frame file, or a frame of an enhanced multi-frame file.

    Attributes:
        position: mm, LPS: centre of the first pixel; None if the file does not say, as all that follows.
        orientation: Direction cosines, LPS: along a row (to the next column), then along a column.
        spacing: mm: between rows, between columns.
        thickness: mm.
        gap: mm from slice to slice, as the header claims.
        slope: Stored value × slope + intercept is the value.
        intercept: See `slope`.
        marks: What may tell volumes of one series apart, by the keys of `header.MARKS`.
    """

    position: tuple[Number, Number, Number] | None = None
    orientation: tuple[Number, Number, Number, Number, Number, Number] | None = None
    spacing: tuple[Number, Number] | None = None
    thickness: Number | None = None
    gap: Number | None = None
    slope: Number = 1
    intercept: Number = 0
    marks: dict[str, Mark] = {}


class Header(_Record):
    """A DICOM file without its pixels.

    Attributes:
        kind: `image`, `seg`, `rtstruct` or `other`.
        syntax: Transfer syntax UID.
        patient: Local id, see `volume.Stack`; empty if the file names no patient.
        detector: (0018,1164), the pixel size of projection pictures.
        allocated: Bits per stored value; `stored` of them count, up to bit `high`.
        padding: Lowest and highest stored value that stands for "no pixel here", or None.
        lut: Values come from a modality lookup table, not from slope and intercept.
        floating: Pixels are floating-point numbers.
        problem: Why the pixels cannot be read, although the rest can; empty if they can.
        frames: One per frame; empty for what is no image.
        facts: By the keys of `volume.FACTS`.
    """

    kind: Literal["image", "seg", "rtstruct", "other"]
    syntax: str
    sop_class: str
    instance: str
    series: str
    study: str
    frame_of_reference: str = ""
    modality: str = ""
    description: str = ""
    patient: str = ""
    rows: int = 0
    columns: int = 0
    samples: int = 1
    photometric: str = ""
    allocated: int = 0
    stored: int = 0
    high: int = 0
    signed: bool = False
    floating: bool = False
    padding: tuple[Number, Number] | None = None
    lut: bool = False
    problem: str = ""
    frames: tuple[Frame, ...] = ()
    facts: dict[str, str | Number] = {}
    referenced_series: tuple[str, ...] = ()
    referenced_instances: tuple[str, ...] = ()

    @property
    def whose(self) -> str:
        """The patient's local id; without a patient ID each study counts as a patient."""
        return self.patient or hashlib.sha256(f"\x1e{self.study or self.series}".encode()).hexdigest()[:12]


class Refusal(_Record):
    """Why a file has no header, by a word of `problems.REASONS`."""

    reason: str
    what: str = ""
