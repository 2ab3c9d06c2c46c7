"""Whole DICOM files cleaned: may this one leave, its header, its voxels. The task `export` of the child with limits."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import decompress
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from client.data.dicom import limits
from client.data.dicom.problems import Unreadable
from client.data.export import attributes as listed
from client.data.export import codes, policy
from client.data.export.elements import Cleaner
from client.data.export.opened import open_file
from client.data.export.policy import Policy
from client.data.export.vocabulary import MODALITIES

# Objects that hold structures drawn on a scan, not the scan itself.
STRUCTURES = ("SEG", "RTSTRUCT")
# Kinds of images that often show text, such as the name of the patient (PS3.15 E.3.1).
_TEXT_LIKELY = frozenset({"US", "SC", "OT", "XC", "ES", "RF", "XA", "NM"})
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SUSPECT_TYPES = frozenset({"SECONDARY", "DERIVED", "SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE"})
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def export(sources: list[str], into: str, policy: dict[str, Any]) -> dict[str, Any]:
    """Clean copies of DICOM files, each under its new instance UID.

    Args:
        sources: Files of one case.
        into: An existing folder for the copies.
        policy: `Policy.values()`.

    Returns:
        `files`: one of {"name", "sha256", "removed", "options"} or {"refused": reason} per source, in their order.
    """
    how = Policy.of(policy)
    return {"files": [_one(Path(source), Path(into), how) for source in sources]}


def _one(source: Path, into: Path, how: Policy) -> dict[str, Any]:
    try:
        whole = open_file(source)
        refusal = may_not_leave(whole, how.inspected)
        if refusal:
            return {"refused": refusal}
        clean, cleaner = cleaned(whole, how)
    except Unreadable as error:
        return {"refused": error.reason}
    except (MemoryError, OverflowError):
        return {"refused": "too-large"}
    except Exception:  # noqa: BLE001 - whatever a damaged file makes a library raise; it costs this file only
        return {"refused": "damaged"}
    path = into / f"{clean.SOPInstanceUID}.dcm"
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        dcmwrite(file, clean, enforce_file_format=True)
        file.flush()
        os.fsync(file.fileno())
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    part.replace(path)
    options = [item.CodeValue for item in clean.DeidentificationMethodCodeSequence]
    return {"name": path.name, "sha256": digest, "removed": cleaner.removed, "options": options}


def may_not_leave(whole: Dataset, inspected: bool) -> str:
    """Why the file stays, as a short word; empty if it may leave.

    Text in the pixels cannot be excluded for some kinds of images, and an absent (0028,0301) does not exclude it.
    """
    modality = str(whole.get("Modality", ""))
    if modality in STRUCTURES:
        return ""
    if modality not in MODALITIES:
        return "modality"
    if str(whole.get("PhotometricInterpretation", "")).startswith("PALETTE"):
        return "palette"
    burned = str(whole.get("BurnedInAnnotation", "")).strip()
    if burned == "YES":
        return "burned-in"
    types = {str(word).strip() for word in _listed(whole.get("ImageType"))}
    likely = modality in _TEXT_LIKELY or str(whole.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE)
    suspect = bool(types & _SUSPECT_TYPES) and burned != "NO"
    return "" if inspected or not (likely or suspect) else "burned-in-unknown"


def cleaned(whole: Dataset, how: Policy) -> tuple[Dataset, Cleaner]:
    """The clean copy of a file, ready to be written, and what has cleaned it.

    Raises:
        Unreadable: It lacks what identifies an object, or its voxels are damaged.
    """
    _decompressed(whole)
    cleaner = Cleaner(how)
    clean = cleaner.clean(whole)
    for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"):
        if not clean.get(name):
            raise Unreadable("damaged", name)
    _dummies(whole, clean)
    _patient(clean, how)
    if whole.get("BurnedInAnnotation") is None and how.inspected and clean.Modality not in STRUCTURES:
        clean.BurnedInAnnotation = "NO"
    _method(clean, how, cleaner.named)
    _voxels(whole, clean)
    clean.file_meta = FileMetaDataset()
    clean.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    clean.file_meta.MediaStorageSOPClassUID = clean.SOPClassUID
    clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    return clean, cleaner


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _dummies(whole: Dataset, clean: Dataset) -> None:
    """Values without meaning where the kind of object must have some (action D)."""
    wanted = dict(listed.DATED_DUMMIES.get(clean.Modality, {}))
    if "NumberOfFrames" in whole:
        wanted |= listed.ENHANCED_DUMMIES
    for name, dummy in wanted.items():
        if name in whole and not clean.get(name):
            setattr(clean, name, dummy)


def _patient(clean: Dataset, how: Policy) -> None:
    clean.PatientName = clean.PatientID = how.patient
    clean.PatientBirthDate = ""
    for name in ("PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"):
        if name not in clean:
            setattr(clean, name, "")


def _method(clean: Dataset, how: Policy, named: bool) -> None:
    """What was done, in the words of the standard: (0012,0062) to (0012,0064) and (0028,0303)."""
    done = [policy.BASIC]
    if named:
        done.append(policy.CLEAN_DESCRIPTORS)
    if how.days:
        done.append(policy.MODIFIED_DATES)
    if how.characteristics:
        done.append(policy.CHARACTERISTICS)
    clean.SpecificCharacterSet = "ISO_IR 192"
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = f"{how.software}: PS3.15 Annex E Basic Profile"[:64]
    clean.DeidentificationMethodCodeSequence = Sequence([codes.code(*code) for code in done])
    clean.LongitudinalTemporalInformationModified = "MODIFIED" if how.days else "REMOVED"


def _decompressed(whole: Dataset) -> None:
    """Voxels without compression: comments inside JPEG data and bytes behind a frame stay here."""
    syntax = whole.file_meta.TransferSyntaxUID
    if syntax in _NATIVE or "PixelData" not in whole:
        return
    if _values(whole) > limits.VOXELS:
        raise Unreadable("too-large")
    try:
        decompress(whole, generate_instance_uid=False)
    except (NotImplementedError, RuntimeError) as error:
        raise Unreadable("transfer-syntax", type(error).__name__) from None


def _voxels(whole: Dataset, clean: Dataset) -> None:
    """The voxels, to the byte as many as the header says, bits of old overlays cleared."""
    name = next((n for n in _PIXELS if n in whole), None)
    if name is None:
        if clean.Modality != "RTSTRUCT":
            raise Unreadable("damaged", "no voxels")
        return
    bits = int(whole.BitsAllocated)
    values = _values(whole)
    if whole.PhotometricInterpretation == "YBR_FULL_422":
        values = values // 3 * 2
    length = -(-values * bits // 8)
    raw = bytes(getattr(whole, name))[:length]
    if len(raw) < length:
        raise Unreadable("damaged", "voxels")
    if whole.file_meta.TransferSyntaxUID == ExplicitVRBigEndian and bits > 8:
        raw = np.frombuffer(raw, f">u{bits // 8}").astype(f"<u{bits // 8}").tobytes()
    if _hidden_overlay(whole):
        raw = _only_stored(raw, whole)
    if bits == 1 and values % 8:
        raw = raw[:-1] + bytes([raw[-1] & (1 << values % 8) - 1])
    setattr(clean, name, raw + b"\0" * (len(raw) % 2))
    if name == "PixelData":
        clean["PixelData"].VR = "OW" if bits > 8 else "OB"


def _values(whole: Dataset) -> int:
    frames = int(whole.get("NumberOfFrames") or 1)
    return int(whole.Rows) * int(whole.Columns) * frames * int(whole.get("SamplesPerPixel") or 1)


def _hidden_overlay(whole: Dataset) -> bool:
    """An overlay in the bits of the pixels that they do not use (retired in 2004, still found)."""
    return any(
        element.tag.group & 0xFF00 == 0x6000 and element.tag.element == 0x0102 and element.value for element in whole
    )


def _only_stored(raw: bytes, whole: Dataset) -> bytes:
    stored, high, bits = int(whole.BitsStored), int(whole.HighBit), int(whole.BitsAllocated)
    if bits not in (8, 16) or not 0 < stored <= high + 1 <= bits:
        raise Unreadable("damaged", "bits")
    kind = np.dtype(f"<u{bits // 8}")
    values = np.frombuffer(raw, kind) & kind.type(((1 << stored) - 1) << (high + 1 - stored))
    if whole.PixelRepresentation == 1 and high + 1 == stored < bits:
        sign = kind.type((1 << bits) - (1 << stored))
        values = np.where(values >> kind.type(stored - 1), values | sign, values)
    return bytes(values.astype(kind).tobytes())
