"""Whether intensities are what the modality gives: finite, not constant, and on the scale that its numbers mean."""

import numpy as np

from client.data.gate.codes import finding
from client.data.gate.summary import Channel, Summary
from client.data.volume import Case, Finding, Source, Volume

# Share of voxels at the largest stored value from which a picture has lost its bright end.
SATURATED = 0.10
# Share of voxels at the smallest stored value from which a CT is cut off at its dark end, if that is denser than air.
CUT_OFF = 0.02
# HU: denser than any lung or air, so that a cut-off below it (padding outside a round field of view) is none.
AIR = -900.0
# Share of voxels between −1500 and −50 HU below which a CT has no air and no fat. Of 595 nodules' boxes the least is
# 0.35; when 1024 is added to them, none reaches a tenth of this.
BELOW_WATER = 1e-3


def check_values(case: Case, path: Source, image: Volume) -> list[Finding]:
    """`not-finite`: NaN, infinity or more than float32 holds. `constant`: a channel in which all voxels are equal."""
    with np.errstate(over="ignore"):
        bad = int(image.array.size - np.isfinite(image.array.astype(np.float32, copy=False)).sum())
    if bad:
        return [finding("not-finite", case.id, f"{path}: {bad} voxels are NaN, infinite or too large for float32")]
    flat = image.array.reshape(image.array.shape[0], -1)
    empty = [str(c) for c in range(flat.shape[0]) if flat[c].min() == flat[c].max()]
    if not empty:
        return []
    return [finding("constant", case.id, f"{path}: channel {', '.join(empty)} is empty (all voxels are equal)")]


def check_modality(case: Case, summary: Summary, modality: str | None) -> list[Finding]:
    """Every channel's intensities against the study's `data.modality`."""
    findings: list[Finding] = []
    for number, channel in enumerate(summary["channels"]):
        where = f"{case.images[min(number, len(case.images) - 1)]}"
        findings += check_saturation(case, where, channel)
        if modality == "CT":
            findings += check_hounsfield(case, where, channel)
        if modality == "PT" and channel["p01"] < 0:
            what = f"{where}: 1 voxel in 1000 is below 0 (to {channel['low']:g}), which no uptake is"
            findings.append(finding("pt-negative", case.id, what))
        if modality in ("MR", "PT"):
            findings += check_bright_border(case, where, channel)
    return findings


def check_hounsfield(case: Case, where: str, channel: Channel) -> list[Finding]:
    """`ct-scaled`, `ct-window` and `ct-offset`: numbers that are not Hounsfield units.

    A CT holds air (−1000) or at least fat (−100), so numbers below −50 are always there. Without any: 0 … 255 is an
    8-bit picture of a window, a few units are a normalised array, else 1024 was added to what is stored. A CT cut
    off above air has a share of its voxels at exactly its smallest value.
    """
    low, high, span = channel["low"], channel["high"], channel["p999"] - channel["p01"]
    if high - low <= 20:
        what = f"{where}: values from {low:g} to {high:g} are no Hounsfield units, but a normalised image"
        return [finding("ct-scaled", case.id, what)]
    if low >= 0 and high <= 255 and channel["whole"] and span > 60:
        return [finding("ct-window", case.id, f"{where}: whole numbers from {low:g} to {high:g}: 8 bits of a window")]
    if channel["below"] < BELOW_WATER:
        what = f"{where}: neither air nor fat, nothing below −50 HU (median {channel['p50']:g})"
        return [finding("ct-offset", case.id, what)]
    if channel["at_low"] >= CUT_OFF and low > AIR:
        what = f"{where}: {channel['at_low']:.0%} of the voxels are exactly {low:g}, the smallest: a window was applied"
        return [finding("ct-window", case.id, what)]
    return []


def check_saturation(case: Case, where: str, channel: Channel) -> list[Finding]:
    """`saturated`: many voxels have exactly the largest value; what was brighter is lost."""
    if channel["at_high"] < SATURATED:
        return []
    what = f"{where}: {channel['at_high']:.0%} of the voxels are exactly {channel['high']:g}, the largest"
    return [finding("saturated", case.id, what)]


def check_bright_border(case: Case, where: str, channel: Channel) -> list[Finding]:
    """`inverted`: the outermost voxels, air in MR and PT, are brighter than nearly all that they surround."""
    if channel["border"] < channel["p50"] + 0.9 * (channel["p999"] - channel["p50"]) or channel["at_high"] < 1e-3:
        return []
    what = f"{where}: the border ({channel['border']:g}) is as bright as the brightest tissue ({channel['p999']:g})"
    return [finding("inverted", case.id, what)]
