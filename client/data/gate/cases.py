"""The gate for one case: before it is prepared, and after."""

from collections.abc import Sequence
from pathlib import Path

from client.data.gate.faces import check_face
from client.data.gate.geometry import check_geometry
from client.data.gate.grids import check_channels, check_dimensions, check_grid
from client.data.gate.intensity import check_modality, check_values
from client.data.gate.label import check_cut, check_empty, check_label, check_lost
from client.data.gate.placement import check_placement
from client.data.labels import LabelMap
from client.data.preprocess import Meta
from client.data.volume import Case, Finding, Volume
from common.study import Study


def check_images(case: Case, images: Sequence[Volume], channels: int, dimensions: int) -> list[Finding]:
    """Every error of a case's images.

    Args:
        case: Names the files.
        images: One volume per source of `case.images`.
        channels: Number of image channels of the study.
        dimensions: 2 or 3.
    """
    findings = check_channels(case, images, channels)
    for path, image in zip(case.images, images, strict=True):
        findings += check_dimensions(case, path, image, dimensions)
        findings += check_values(case, path, image)
        if image is not images[0]:
            findings += check_grid(case, path, image, images[0], "image-grid")
    return findings


def check_mask(case: Case, path: Path, label: Volume, image: Volume, dimensions: int,
               labels: LabelMap) -> list[Finding]:  # fmt: skip
    """Every error of a label map.

    Args:
        case: Whose it is.
        path: Its file.
        label: What was read from it.
        image: The case's (first) image.
        dimensions: 2 or 3.
        labels: The site's label rules.
    """
    findings = check_dimensions(case, path, label, dimensions)
    findings += check_grid(case, path, label, image, "label-grid")
    return findings + check_label(case, path, label, labels)


def check_kept(case: Case, meta: Meta, study: Study) -> list[Finding]:
    """What is odd about a prepared case that can be used; reads nothing but its `meta`."""
    summary, labels = meta["gate"], study.data.labels
    findings = [
        Finding(code, "warning", case.id, f"{case.label}: {what}", remedy) for code, what, remedy in meta["notes"]
    ]
    findings += check_geometry(case, meta, study.plan)
    findings += check_modality(case, summary, study.data.modality)
    findings += check_empty(case, meta["voxels"]) + check_lost(case, meta["voxels"], meta["plan_voxels"], labels)
    findings += check_cut(case, summary["structures"], labels) + check_placement(case, summary["edges"])
    return findings + check_face(case, summary["relief"], study.data.modality)
