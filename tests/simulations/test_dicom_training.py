"""A study trained on DICOM ends where it ends on NIfTI files of the same cases.

The same cases means the same patients in the same parts of the split, so the NIfTI files are listed in a table under
the ids that the DICOM cases have.
"""

import csv
from pathlib import Path

from client.app import make_app
from client.data.catalogue import look
from client.data.prepare import prepare
from client.site import SiteConfig, site_of_file
from client.work.results import read_results
from common.study import Study
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid
from simulations.phantom import make_phantom
from simulations.sites import Field

# Hospital 1 keeps its labels as SEG, hospital 2 as RTSTRUCT.
SEG, RTSTRUCT = "hospital-1", "hospital-2"
CASES = 6
STUDY = Study.model_validate({
    "name": "both", "data": {"labels": ["liver", "kidneys"]},
    # On the scans' own grids: NIfTI keeps its affine in float32, and what resampling makes of that in the seventh digit
    # grows with every step.
    "plan": {"patch": [16, 16, 8]},
    "net": {"name": "unet", "width": 8, "levels": 3, "norm": "instance"}, "loss": "dice_ce",
    "training": {"steps": 15, "rate": 0.01, "batch": 2}, "rounds": {"number": 6},
    "evaluation": {"validation": 0.2, "test": 0.34, "every": 3},
})  # fmt: skip


def dice(folder: Path, sites: tuple[SiteConfig, ...]) -> dict[str, dict[str, float]]:
    """Case -> label -> Dice on the test cases, after a federation of `sites`."""
    field = Field(sites, folder / "cache", folder / "homes")
    opened = field.open()
    grid = InlineGrid(make_app(lambda context: opened[int(context.node_config["partition-id"])]), len(opened))
    members = join(grid, STUDY)
    roster = [members[site.name] for site in sites]
    run = Run(grid, STUDY, folder / "run", roster, roster)
    state = run.start()
    file = f"round-{state.best_round:05d}-test.json"
    rows = [row for site in sites for path in (folder / "homes" / site.name / "results").rglob(file)
            for row in read_results(path)]  # fmt: skip
    return {row["case"]: row["dice"] for row in rows}


def as_nifti(dicom: SiteConfig, nifti: Path, folder: Path) -> SiteConfig:
    """The NIfTI files of the cases of `dicom`, found by their voxels, under the ids of DICOM."""
    places = {"cache": folder / "cache", "home": folder / "home" / dicom.name}
    ours = {case.image: case for case in prepare(STUDY, dicom, **places).usable}
    plain = SiteConfig(name=dicom.name, data=nifti)
    theirs = {case.id: case.image for case in prepare(STUDY, plain, cache=folder / "c", home=folder / "h").usable}
    assert len(ours) == len(theirs) == CASES
    table = folder / f"{dicom.name}.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "patient", "image", "label"])
        for case in look(plain, 1).cases:
            same = ours[theirs[case.id]]
            rows.writerow([same.id, same.patient, case.images[0], case.label])
    return SiteConfig(name=dicom.name, data=table)


def test_training_on_dicom_is_training_on_nifti(tmp_path: Path) -> None:
    made = {form: make_phantom(tmp_path / form, sites=2, cases=CASES, format=form) for form in ("dicom", "nifti")}
    dicom = tuple(site_of_file(folder / "site.yaml") for folder in made["dicom"])
    nifti = tuple(as_nifti(site, folder, tmp_path) for site, folder in zip(dicom, made["nifti"], strict=True))
    for number, name in enumerate((SEG, RTSTRUCT)):
        one = dice(tmp_path / f"{name}-dicom", dicom[number : number + 1])
        other = dice(tmp_path / f"{name}-nifti", nifti[number : number + 1])
        assert one.keys() == other.keys()
        assert len(one) == 2
        # Something was learnt, and it is the same to the last bit.
        assert max(score for case in one.values() for score in case.values() if score is not None) > 0.05
        assert one == other
