"""Whether a case's grid suits the study's plan: voxel size, slice thickness, field of view."""

from collections.abc import Sequence

from client.data.gate.codes import finding
from client.data.preprocess import Meta
from client.data.volume import Case, Finding
from common.study_plan import Plan

# mm; microscopy and thick localisers lie outside, and most wrong units do.
PLAUSIBLE_SPACING = (0.02, 20.0)
# Voxels this much longer than the plan's: of four slices that the net sees, three are interpolated.
THICK = 4.0
# Longest to shortest voxel side. Head CT in thick slices has 0.45 × 0.45 × 5 mm, 11; what is beyond is a localiser.
ANISOTROPIC = 15.0


def check_geometry(case: Case, meta: Meta, plan: Plan) -> list[Finding]:
    """Every finding of this file for one prepared case."""
    spacing = meta["own"]["spacing"]
    found = check_spacing(case, spacing) + check_thickness(case, spacing, plan.spacing)
    return found + check_field(case, meta["plan"]["shape"], plan.patch)


def check_spacing(case: Case, spacing: Sequence[float]) -> list[Finding]:
    """`spacing`: a voxel size that no scanner makes; probably wrong units. Pictures have none."""
    low, high = PLAUSIBLE_SPACING
    if len(spacing) == 2 or all(low <= s <= high for s in spacing):
        return []
    what = f"{case.images[0]}: voxel size {numbers(spacing)} mm is implausible (expected {low:g} to {high:g})"
    return [finding("spacing", case.id, what)]


def check_thickness(case: Case, spacing: Sequence[float], wanted: Sequence[float] | None) -> list[Finding]:
    """`thick-slices`: far coarser than the plan. `anisotropic`: voxels far longer than wide. Pictures have neither."""
    if len(spacing) == 2:
        return []
    if wanted is not None and any(own >= THICK * plan for own, plan in zip(spacing, wanted, strict=True)):
        what = f"{case.images[0]}: voxel size {numbers(spacing)} mm, the plan's is {numbers(wanted)} mm"
        return [finding("thick-slices", case.id, what)]
    if max(spacing) > ANISOTROPIC * min(spacing):
        ratio = f"{max(spacing) / min(spacing):.0f} times as long as wide"
        return [finding("anisotropic", case.id, f"{case.images[0]}: voxel size {numbers(spacing)} mm, {ratio}")]
    return []


def check_field(case: Case, shape: Sequence[int], patch: Sequence[int]) -> list[Finding]:
    """`small-field`: on the plan's grid the scan is smaller than half the patch along an axis; the rest is padding."""
    if all(2 * n >= p for n, p in zip(shape, patch, strict=True)):
        return []
    what = f"{case.images[0]}: {' × '.join(map(str, shape))} voxels on the plan's grid, a patch has "
    return [finding("small-field", case.id, what + " × ".join(map(str, patch)))]


def numbers(values: Sequence[float]) -> str:
    """`values` for people, with commas."""
    return ", ".join(f"{v:g}" for v in values)
