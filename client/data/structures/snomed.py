"""SNOMED CT's numbers and the older identifiers of SNOMED RT (T-62000), which mean the same."""

# Designators under which DICOM files have SNOMED's old identifiers (PS3.16 section 8).
OLD = ("SRT", "SNM3", "99SDM")
CURRENT = "SCT"


def current(value: str, scheme: str) -> tuple[str, str]:
    """Value and scheme as SNOMED CT has them, where SNOMED RT's are known to it; else unchanged."""
    if scheme not in OLD:
        return value, scheme
    # The table is large, and most files need none of it.
    from pydicom.sr._snomed_dict import mapping

    known = mapping["SRT"].get(value)
    return (known, CURRENT) if known else (value, scheme)
