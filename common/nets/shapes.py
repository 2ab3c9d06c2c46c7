"""Which inputs a net that halves its input can take."""

from collections.abc import Sequence

from common.errors import StudyError


def check_input(
    size: Sequence[int], divisor: Sequence[int], *, multiple: bool = True, more_than_one: bool = True
) -> None:
    """Raise ValueError if an input of `size` does not fit.

    Args:
        size: The input's sides in voxels.
        divisor: By how much the lowest level is coarser.
        multiple: Whether each side must be a multiple of the divisor, or only as large.
        more_than_one: Whether the lowest level needs two voxels, because normalising a single one gives 0.
    """
    wanted = "multiples of" if multiple else "at least"
    if any(n < d or (multiple and n % d) for n, d in zip(size, divisor, strict=True)):
        raise ValueError(f"input of {list(size)} voxels: the net needs sides of {wanted} {list(divisor)}")
    if more_than_one and all(n // d == 1 for n, d in zip(size, divisor, strict=True)):
        raise ValueError(f"input of {list(size)} voxels leaves a single voxel at the lowest level: double a side")


def need_3d(dimensions: int, net: str) -> None:
    """Raise StudyError if a net that exists only in 3D is asked for in 2D."""
    if dimensions != 3:
        raise StudyError(f"{net} exists only in 3D, but data.dimensions is {dimensions}: choose another net")
