"""DICOM objects that are no images: segmentations, contours, and what else lies in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from client.data.volume import Finding, Stack


@dataclass(frozen=True)
class Item:
    """One DICOM file that is not part of a stack.

    Attributes:
        file: Where it lies.
        kind: `seg`, `rtstruct`, or `other` (reports, presentation states, doses, secondary captures, …).
        modality: (0008,0060).
        sop_class: SOP class UID.
        instance: SOP instance UID.
        series: Its own series instance UID.
        study: Study instance UID.
        patient: Local id, as `Stack.patient`.
        description: The series description.
        frame_of_reference: Its frame-of-reference UID, or an empty string.
        referenced_series: The series instance UIDs that it refers to.
        referenced_instances: The SOP instance UIDs that it refers to.
    """

    file: Path
    kind: str
    modality: str
    sop_class: str
    instance: str
    series: str
    study: str
    patient: str
    description: str = ""
    frame_of_reference: str = ""
    referenced_series: tuple[str, ...] = ()
    referenced_instances: tuple[str, ...] = ()


class Scan(NamedTuple):
    """What a folder holds.

    Attributes:
        stacks: Every volume and picture that can be read, sorted by patient, study, series and name.
        items: The other DICOM objects.
        findings: What is left out or odd, and why; `case` is the stack's id, or empty where there is none.
    """

    stacks: tuple[Stack, ...]
    items: tuple[Item, ...]
    findings: tuple[Finding, ...]
