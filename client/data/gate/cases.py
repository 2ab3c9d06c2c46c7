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


def check_case(case: Case, images: Sequence[Volume], label: Volume, channels: int, dimensions: int,
               labels: LabelMap) -> list[Finding]:  # fmt: skip
    """Every error of one labelled case.

    Args:
        case: Names the files.
        images: One volume per file of `case.images`.
        label: The volume of `case.label`.
        channels: Number of image channels of the study.
        dimensions: 2 or 3.
        labels: The site's label rules.
    """
    findings = check_channels(case, images, channels)
    for path, image in zip(case.images, images, strict=True):
        findings += check_dimensions(case, path, image, dimensions)
        findings += check_values(case, path, image)
        if image is not images[0]:
            findings += check_grid(case, path, image, images[0], "image-grid")
    path = case.label or Path()
    findings += check_dimensions(case, path, label, dimensions)
    findings += check_grid(case, path, label, images[0], "label-grid")
    return findings + check_label(case, path, label, labels)


def check_kept(case: Case, meta: Meta, study: Study) -> list[Finding]:
    """What is odd about a prepared case that can be used; reads nothing but its `meta`."""
    summary, labels = meta["gate"], study.data.labels
    findings = check_geometry(case, meta, study.plan)
    findings += check_modality(case, summary, study.data.modality)
    findings += check_empty(case, meta["voxels"]) + check_lost(case, meta["voxels"], meta["plan_voxels"], labels)
    findings += check_cut(case, summary["structures"], labels) + check_placement(case, summary["edges"])
    return findings + check_face(case, summary["relief"], study.data.modality)
