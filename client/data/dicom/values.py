"""Stored values and what they mean: the range of a slice, and the smallest type that holds a volume exactly."""

from collections.abc import Sequence

from client.data.dicom.codecs import SYNTAXES
from client.data.dicom.kinds import PROJECTIONS
from client.data.dicom.records import Frame, Header


def stored_range(header: Header) -> tuple[int, int]:
    """The lowest and highest value that the stored bits can hold."""
    if header.signed:
        return -(1 << (header.stored - 1)), (1 << (header.stored - 1)) - 1
    return 0, (1 << header.stored) - 1


def fills_padding(header: Header) -> bool:
    """Whether padded pixels take the smallest real value of the volume.

    In CT and in projections they stand for places that were not recorded, and their value lies far outside the
    others (-2000 in CT). In MR and PET the padding value is the background's own, which stays as it is; after lossy
    compression the pixels around it have values beyond it, and nothing tells which are real.
    """
    meant = header.modality == "CT" or header.modality in PROJECTIONS
    return header.padding is not None and meant and not SYNTAXES[header.syntax].lossy


def inverted(header: Header) -> bool:
    """Whether bright and dark are exchanged: projections in MONOCHROME1, so that dense is bright in all of them.

    In CT, MR and PET the values are measurements, and MONOCHROME1 only says how to show them.
    """
    return header.photometric == "MONOCHROME1" and header.modality in PROJECTIONS


def dtype_of(slices: Sequence[tuple[Header, Frame]]) -> str:
    """int16, int32 or float32: the smallest that holds every value of these slices; one number is kept for padding.

    Values of 32 bits, and those of fractional slopes, are rounded to float32.
    """
    low, high = 0.0, 0.0
    kinds = {(f.slope, f.intercept, h.stored, h.signed, h.floating, h.lut) for h, f in slices}
    headers = {(h.stored, h.signed): h for h, _ in slices}
    for slope, intercept, stored, signed, floating, lut in kinds:
        if floating or slope != int(slope) or intercept != int(intercept):
            return "float32"
        ends = stored_range(headers[stored, signed]) if not lut else (0, 0xFFFF)
        values = [end * slope + intercept for end in ends] if not lut else [float(end) for end in ends]
        low, high = min(low, *values), max(high, *values)
    for bits in (16, 32):
        if -(2 ** (bits - 1)) < low and high < 2 ** (bits - 1):
            return f"int{bits}"
    return "float32"
