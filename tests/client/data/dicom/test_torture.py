"""Every defect is read right or refused with its finding; nothing crashes, and what lies beside it is not lost.

Each defect lies in a folder beside a good series of another patient, which must be read all the same. What is read is
held against truth that does not come from our reader (see `good`): a series made from an array, a real one read by
SimpleITK.
"""

import shutil
from pathlib import Path

import pytest

from tests.client.data.dicom import defects_files  # noqa: F401 - enters its defects
from tests.client.data.dicom.defects import DEFECTS
from tests.client.data.dicom.good import NAME, PATIENT, Good, Outcome, Truth, made_up, outcome, real, save

SECONDS = 30
GROWN = 200 * 2**20  # bytes of this process at most: it holds names, headers' facts and one volume at a time


@pytest.fixture(scope="module")
def bystander(tmp_path_factory: pytest.TempPathFactory) -> Good:
    return made_up(tmp_path_factory.mktemp("bystander"), patient="bystander")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Good:
    return made_up(tmp_path_factory.mktemp("made-up"))


@pytest.fixture(scope="module")
def prostate(fedscan_data: Path) -> Good:
    return real(fedscan_data)


def tree(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.lstat().st_size for p in folder.rglob("*") if not p.is_dir()}


def torture(name: str, good: Good, bystander: Good, tmp_path: Path) -> None:
    root = tmp_path / "site" / "scans"
    save(bystander.sets(), root / "bystander")
    (root / "case").mkdir()
    wanted = DEFECTS[name].spoil(good, root / "case")
    unpacked = tmp_path / "site" / "unpacked"
    before = tree(tmp_path)
    result = outcome(root, unpacked)
    shutil.rmtree(unpacked, ignore_errors=True)
    assert tree(tmp_path) == before, "files were written or changed"
    assert result.seconds < SECONDS
    assert result.grown < GROWN
    told(name, result)
    read(name, result, [*wanted, bystander.truth])


def read(name: str, result: Outcome, wanted: list[Truth]) -> None:
    volumes = [volume for _, volume in result.volumes]
    for truth in wanted:
        found = [v for v in volumes if truth.is_read_as(v)]
        assert found, (
            f"not read as it should be: {[(v.array.shape, v.affine.tolist()) for v in volumes]} {result.codes}"
        )
    assert len(volumes) <= len(wanted) + DEFECTS[name].others, (
        f"read beside what should be: {[s.name for s, _ in result.volumes]}"
    )


def told(name: str, result: Outcome) -> None:
    codes = DEFECTS[name].codes
    if codes:
        assert result.codes & set(codes), f"not told: {sorted(result.codes)}"
    for secret in (PATIENT, NAME, NAME.split("^")[0], "2.25.", "1.3.6.1.4.1"):
        assert secret not in result.text(), "a finding repeats what names the patient"
    assert "Traceback" not in result.text()


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_made_up_series(name: str, synthetic: Good, bystander: Good, tmp_path: Path) -> None:
    torture(name, synthetic, bystander, tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_real_series(name: str, prostate: Good, bystander: Good, tmp_path: Path) -> None:
    torture(name, prostate, bystander, tmp_path)
