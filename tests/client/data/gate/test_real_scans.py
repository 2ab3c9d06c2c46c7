"""The gate on real scans: a seeded sample of the public sets, clean and with a planted defect."""

from pathlib import Path

import numpy as np
import pytest

from client.data.gate.cases import check_kept
from client.data.gate.site import check_site
from simulations.benchmarks.gate import SETS, Scan, hit, mirrored_case, mirrored_mask, scans

HIPPOCAMPUS, _, LUNGS = SETS


def some(root: Path, chosen: object, site: str, number: int) -> list[Scan]:
    found = [scan for scan in scans(root, chosen) if scan.site == site]  # type: ignore[arg-type]
    return found[:number]


@pytest.mark.data
@pytest.mark.parametrize(("chosen", "site"), [(HIPPOCAMPUS, "group-mid"), (LUNGS, "shenzhen")], ids=["MR", "X-ray"])
def test_clean_cases_give_no_finding_and_mirrored_masks_do(fedscan_data: Path, chosen: object, site: str) -> None:
    study = chosen.study()  # type: ignore[attr-defined]
    whole = some(fedscan_data, chosen, site, 24)
    known = {site: [(scan.case, scan.meta(study)) for scan in whole]}
    clean = [f for case, meta in known[site] for f in check_kept(case, meta, study)] + check_site(known[site], study)
    assert [f for f in clean if f.code != "few-cases"] == []
    random = np.random.default_rng(1)
    wrong = [new for scan in whole[:10] if (new := mirrored_mask(0)(scan, random)) is not None]
    assert all(hit(known, new, study, {"mask-mirrored"}) for new in wrong)
    turned = [mirrored_case(0)(scan, random) for scan in whole[:10]]
    assert sum(hit(known, new, study, {"case-mirrored", "structure-side"}) for new in turned if new) >= 9
