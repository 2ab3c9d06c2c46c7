"""The three real sets: published counts, every case usable, geometry against SimpleITK."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from client.data import cache as cached
from client.data.catalogue import find_cases
from client.data.prepare import prepare
from client.data.readers import read
from client.site import SiteConfig
from common.study import Study

pytestmark = pytest.mark.data

HIPPOCAMPUS = {"data": {"labels": ["anterior", "posterior"]}, "plan": {"spacing": [1, 1, 1], "patch": [32, 32, 32]}}
NODULE = {"data": {"labels": ["nodule"]},
          "plan": {"spacing": [0.7, 0.7, 1.25], "patch": [32, 32, 16], "intensity": {"method": "window"}}}  # fmt: skip
LUNGS = {"data": {"labels": ["lung"], "dimensions": 2}, "plan": {"size": [64, 64], "patch": [64, 64]}}

# Cases and patients per site, as the sets' README counts them.
SITES = [
    ("hippocampus-mr-3d", "group-mid", 101, 101, HIPPOCAMPUS, {}),
    ("hippocampus-mr-3d", "group-byte", 35, 35, HIPPOCAMPUS, {}),
    ("hippocampus-mr-3d", "group-large", 20, 20, HIPPOCAMPUS, {}),
    ("lung-nodule-ct-3d", "ge", 419, 232, NODULE, {}),
    ("lung-nodule-ct-3d", "siemens", 106, 61, NODULE, {}),
    ("lung-nodule-ct-3d", "philips", 66, 36, NODULE, {}),
    ("lung-nodule-ct-3d", "toshiba", 4, 2, NODULE, {}),
    ("chest-xray-lungs-2d", "montgomery", 83, 83, LUNGS, {"lung": {"from": 128}}),
    ("chest-xray-lungs-2d", "shenzhen", 114, 114, LUNGS, {"lung": {"from": 128}}),
]


@pytest.mark.parametrize(("folder", "name", "cases", "patients", "study", "labels"), SITES, ids=[s[1] for s in SITES])
def test_every_case_is_usable(folder: str, name: str, cases: int, patients: int, study: dict[str, object],
                              labels: dict[str, object], fedscan_data: Path, tmp_path: Path) -> None:  # fmt: skip
    the_study = Study.model_validate({"name": "s", "training": {"steps": 1}, **study})
    site = SiteConfig.model_validate({"name": name, "data": fedscan_data / folder / name, "labels": labels})
    data = prepare(the_study, site, cache=tmp_path / "cache", home=tmp_path / "home")
    assert [finding for finding in data.findings if finding.severity == "error"] == []
    parts = [{c.patient for c in part} for part in (data.train, data.validation, data.test)]
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == cases
    assert sum(map(len, parts)) == len(set().union(*parts)) == patients
    lines = (fedscan_data / folder / "cases.csv").read_text().splitlines()
    rows = {row["case"]: row for row in csv.DictReader(lines)}
    for case in (*data.train, *data.validation, *data.test):
        truth, row = cached.load_truth(case), rows[case.id]
        if "foreground_voxels" in row:
            assert sum(cached.load_meta(case)["voxels"]) == int(row["foreground_voxels"])
        else:
            # The table rounds to four digits.
            assert truth.mean() == pytest.approx(float(row["lung_fraction_at_128"]), abs=6e-5)
        assert len(cached.load_foreground(case)) > 0
    table = SiteConfig(name=name, data=fedscan_data / folder, where={"site": name})
    by_table = {(c.id, c.patient) for c in find_cases(table, 1)}
    assert by_table == {(c.id, c.patient) for c in find_cases(site, 1)}


@pytest.mark.parametrize("folder", ["hippocampus-mr-3d", "lung-nodule-ct-3d"])
def test_scans_lie_where_itk_says(folder: str, fedscan_data: Path) -> None:
    for case in find_cases(SiteConfig(name="all", data=fedscan_data / folder), 1)[::40]:
        volume, itk = read(case.images[0]), SimpleITK.ReadImage(str(case.images[0]))
        values = SimpleITK.GetArrayViewFromImage(itk)
        for corner in np.ndindex(2, 2, 2):
            index = np.array(corner) * (np.array(volume.array.shape[1:]) - 1)
            x, y, z = (volume.affine @ (*index, 1))[:3]
            there = itk.TransformPhysicalPointToIndex((-x, -y, z))
            assert volume.array[(0, *index)] == values[there[::-1]]
