"""Whether a label map says what it should: known numbers, nothing lost, whole structures."""

from collections.abc import Sequence
from pathlib import Path

from client.data.gate.codes import finding
from client.data.gate.geometry import numbers
from client.data.gate.summary import Structure
from client.data.labels import LabelMap
from client.data.volume import Case, Finding, Volume

# Cross-section at the side of the field of view, as a share of the largest, from which a structure is cut in two.
CUT = 0.5


def check_label(case: Case, path: Path, label: Volume, labels: LabelMap) -> list[Finding]:
    """`label-channels`, `label-value` (a stored value that no rule covers), `label-nothing` (all is `data.ignore`)."""
    if label.array.shape[0] != 1:
        return [finding("label-channels", case.id, f"{path}: the label map has {label.array.shape[0]} channels")]
    unknown = labels.unknown(label.array)
    if unknown:
        shown = numbers(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        return [finding("label-value", case.id, f"{path}: unknown label value(s) {shown}")]
    if labels.nothing_labelled(label.array):
        what = f"{path}: every voxel has the value {labels.ignore}, which means not labelled (data.ignore of the study)"
        return [finding("label-nothing", case.id, what)]
    return []


def check_empty(case: Case, voxels: Sequence[int]) -> list[Finding]:
    """`label-empty`: no voxel of any label."""
    return [] if any(voxels) else [finding("label-empty", case.id, f"{case.label}: no voxel has a label")]


def check_lost(case: Case, own: Sequence[int], plan: Sequence[int], labels: Sequence[str]) -> list[Finding]:
    """`label-lost`: a label has voxels in the file but none on the plan's grid, which is too coarse for it."""
    lost = [name for name, before, after in zip(labels, own, plan, strict=True) if before and not after]
    if not lost:
        return []
    what = f"{case.label}: {', '.join(lost)} is too small for the plan's grid and vanishes on it"
    return [finding("label-lost", case.id, what)]


def check_cut(case: Case, structures: Sequence[Structure | None], labels: Sequence[str]) -> list[Finding]:
    """`label-cut`: a structure is cut off by the side of the field of view."""
    cut = [name for name, s in zip(labels, structures, strict=True) if s is not None and s["cut"] >= CUT]
    if not cut:
        return []
    return [finding("label-cut", case.id, f"{case.label}: {', '.join(cut)} is cut off by the side of the scan")]
