"""Words for people: axes of the patient."""

from client.data.volume import Case

_VOLUME = ("left–right", "front–back", "up–down")
_PICTURE = ("up–down", "left–right")


def axis_names(case: Case, dimensions: int) -> tuple[str, ...]:
    """What each array axis of the case is in the patient (volumes) or on the screen (pictures)."""
    if dimensions == 3:
        return _VOLUME
    # A flat NIfTI file has the columns first.
    nifti = ".nii" in str(case.images[0]).lower()
    return _PICTURE[::-1] if nifti else _PICTURE
