"""A study sees the same in DICOM phantoms as in the NIfTI phantoms of the same patients, voxel by voxel."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.data.prepare import prepare
from client.data.volume import SiteData
from common.documents import Document
from common.errors import StudyError
from common.study import study_of
from simulations.config import simulated_sites

STUDY = """\
name: both
data: {{labels: [{labels}], dimensions: {dimensions}}}
plan: {{patch: [{patch}]{spacing}, intensity: {{method: zscore}}}}
net: {{name: unet}}
training: {{steps: 1}}
rounds: {{number: 1}}
sites: {{make: phantom, number: 4, cases: 3{more}}}
"""
# A spacing at which no voxel of the plan's grid lies half-way between two of a scan's.
VOLUMES = {"dimensions": "3", "patch": "16, 16, 16", "spacing": ", spacing: [3.7, 3.7, 3.7]"}
PICTURES = {"dimensions": "2", "patch": "32, 32", "spacing": ""}


def sites_of(folder: Path, phantom: str | None, labels: str = "liver, kidneys", more: str = "", **plan: str) -> list:
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(STUDY.format(labels=labels, more=more, **(plan or VOLUMES)))
    document = Document.read(folder / "study.yaml")
    study = study_of(document)
    sites = simulated_sites(document, study, None, folder / "work", phantom)  # type: ignore[arg-type]
    return [(study, site) for site in sites]


def prepared(folder: Path, pairs: list) -> list[SiteData]:
    return [prepare(study, site, cache=folder / "cache", home=folder / site.name) for study, site in pairs]


def arrays(data: SiteData) -> list[tuple[str, str, NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]]:
    """Part, hash of the scan's voxels, image, label and truth of each case, in an order that ids do not decide."""
    found = []
    for part in ("train", "validation", "test"):
        for case in getattr(data, part):
            image, label, truth = (np.load(case.folder / f"{n}.npy") for n in ("image", "label", "truth"))
            found.append((part, case.image, image, label, truth))
    return sorted(found, key=lambda entry: entry[1])


@pytest.mark.parametrize("plan", [VOLUMES, PICTURES], ids=["volumes", "pictures"])
def test_dicom_and_nifti_give_the_same_arrays(tmp_path: Path, plan: dict[str, str]) -> None:
    nifti, dicom = (prepared(tmp_path, sites_of(tmp_path / f, f, **plan)) for f in ("nifti", "dicom"))
    for one, other in zip(nifti, dicom, strict=True):
        assert not [f for f in other.findings if f.severity == "error"]
        pairs = list(zip(arrays(one), arrays(other), strict=True))
        assert len(pairs) == 3
        for (_, first_hash, *first), (_, second_hash, *second) in pairs:
            assert first_hash == second_hash
            # NIfTI keeps its affine in float32: the weights of resampling differ in the seventh digit.
            np.testing.assert_allclose(first[0], second[0], rtol=0, atol=1e-5)
            for label, other_label in zip(first[1:], second[1:], strict=True):
                np.testing.assert_array_equal(label, other_label)


def test_the_format_may_stand_in_the_study(tmp_path: Path) -> None:
    sites = [site for _, site in sites_of(tmp_path, None, more=", format: dicom")]
    assert [site.layout for site in sites] == ["dicom"] * 4
    assert [site.layout for _, site in sites_of(tmp_path, "nifti", more=", format: dicom")] == ["nnunet"] * 4


def test_a_study_of_one_organ_ignores_the_other(tmp_path: Path) -> None:
    data = prepared(tmp_path, sites_of(tmp_path, "dicom", labels="kidneys"))
    assert all(len(d.train) + len(d.validation) + len(d.test) == 3 for d in data)
    assert max(int(np.load(case.folder / "label.npy").max()) for d in data for case in d.train) == 1


def test_other_studies_have_no_phantoms(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        STUDY.format(labels="liver", more="", **VOLUMES).split("sites:")[0] + "sites: .\n"
    )
    document = Document.read(tmp_path / "study.yaml")
    with pytest.raises(StudyError, match="--phantom is for studies with sites:"):
        simulated_sites(document, study_of(document), None, tmp_path / "work", "dicom")
