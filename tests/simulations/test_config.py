"""The simulation's sections of a study file: what they become, and what is said of each mistake and where."""

import re
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import ValidationError

from client.data.catalogue import find_cases
from client.site import SiteConfig
from common.documents import Document
from common.errors import StudyError
from common.section import Choice
from common.study import Study, load_study, study_of
from simulations import console
from simulations.arms import arms
from simulations.config import compared, leaves_one_out, pooled_fits, simulated_sites
from simulations.phantom import make_phantom

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PHANTOM = ROOT / "simulations" / "phantom.yaml"

BASE = """\
name: test
data: {labels: [liver, kidneys], dimensions: 2}
plan: {patch: [32, 32]}
training: {steps: 1}
"""


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDSCAN_DATA", raising=False)


def written(folder: Path, section: str, base: str = BASE) -> tuple[Document, Study]:
    """A study with `section` from its 5th line on."""
    folder.mkdir(exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(base + dedent(section), encoding="utf-8")
    document = Document.read(path)
    return document, study_of(document)


def error_of(folder: Path, section: str) -> str:
    """What is said of `section`, without the folder that the file lies in."""
    with pytest.raises(StudyError) as caught:
        simulated_sites(*written(folder, section), None, folder / "work")
    return str(caught.value).replace(f"{folder}/", "")


def test_listed_sites(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    section = """\
        sites:
          oslo: {data: scans, labels: {liver: {from: 3, to: 5}}}
          bergen: {data: scans, use: test, device: cpu}
        """
    oslo, bergen = simulated_sites(*written(tmp_path, section), None, tmp_path / "work")
    assert (oslo.name, oslo.use, oslo.data) == ("oslo", "train", (tmp_path / "scans").resolve())
    assert oslo.labels["liver"].low == 3  # type: ignore[union-attr]
    assert (bergen.name, bergen.use, bergen.device) == ("bergen", "test", "cpu")


def test_data_is_looked_for_in_three_places_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, study = written(tmp_path / "study", "sites: {a: {data: scans}}")
    given, environment, beside = tmp_path / "given", tmp_path / "environment", tmp_path / "study"
    monkeypatch.setenv("FEDSCAN_DATA", str(environment))
    for place in (beside, environment, given):
        (place / "scans").mkdir(parents=True)
        (site,) = simulated_sites(document, study, given, tmp_path / "work")
        assert site.data == (place / "scans").resolve()


def test_data_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSCAN_DATA", "/nowhere")
    message = error_of(tmp_path, "sites:\n  a:\n    data: scans\n")
    assert message == (
        "study.yaml:7: sites.a.data: 'scans' was not found. "
        "Tried --data: not given; $FEDSCAN_DATA: /nowhere/scans; the study file's folder: scans"
    )


def test_a_folder_of_sites(tmp_path: Path) -> None:
    for name in ("North West", "east", ".hidden"):
        (tmp_path / "hospitals" / name).mkdir(parents=True)
    (tmp_path / "hospitals" / "a file.txt").touch()
    (tmp_path / "hospitals" / "east" / "scans").mkdir()
    (tmp_path / "hospitals" / "east" / "site.yaml").write_text("data: scans\nuse: test\nlabels: {liver: 2}\n")
    north, east = simulated_sites(*written(tmp_path, "sites: hospitals"), None, tmp_path / "work")
    assert (north.name, north.data) == ("north-west", tmp_path / "hospitals" / "North West")
    assert (east.name, east.use, east.labels) == ("east", "test", {"liver": 2})
    assert east.data == tmp_path / "hospitals" / "east" / "scans"


def test_a_mistake_in_a_sites_own_file(tmp_path: Path) -> None:
    home = tmp_path / "hospitals" / "east"
    home.mkdir(parents=True)
    (home / "site.yaml").write_text("use: train\nlabls: {liver: 2}\n")
    assert "site.yaml:2: labls: unknown key. Did you mean 'labels'?" in error_of(tmp_path, "sites: hospitals")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("", "study.yaml:1: (whole file): the study does not say where the scans are: add sites:"),
        ("sites: {}\npartition: {}", "study.yaml:5: sites: the study has both sites: and partition:; keep one"),
        ("sites: {}", "study.yaml:5: sites: give a name and settings for each site"),
        ("sites: [a]", "study.yaml:5: sites: give a name and settings for each site"),
        ("sites: nowhere", "study.yaml:5: sites: 'nowhere' was not found. Tried --data"),
        ("sites: study.yaml", "is not a folder with one sub-folder per site"),
        ("sites:\n  a: scans", "study.yaml:6: sites.a: give the site's settings, e.g. data: folder"),
        ("sites:\n  a: {}", "study.yaml:6: sites.a.data: this key is required"),
        (
            "sites:\n  a:\n    data: .\n    labls: {}",
            "study.yaml:8: sites.a.labls: unknown key. Did you mean 'labels'?",
        ),
        ("sites:\n  a:\n    data: .\n    name: b", "study.yaml:8: sites.a.name: a site's name is its key"),
        ("sites:\n  a: {data: ., use: tset}", "study.yaml:6: sites.a.use: "),
        ("sites:\n  A b: {data: .}", "study.yaml:6: sites.A b"),
        ("sites:\n  a: {data: ., use: test}", "study.yaml:5: sites: no site is left to train on"),
        (
            "sites:\n  a: {data: .}\n  b: {data: ., use: test}\ncompare: [fedavg, fedbn]",
            "study.yaml:5: sites: site b is for the test only, but fedbn keeps layers of the net at each site",
        ),
        ("sites:\n  pooled: {data: .}", "study.yaml:6: sites.pooled: a site may not be called 'pooled'"),
        ("sites:\n  make: phantm", "study.yaml:6: sites.make: "),
        ("sites:\n  make: phantom\n  cases: 1", "study.yaml:7: sites.cases: "),
        ("sites:\n  make: phantom\n  number: 0", "study.yaml:7: sites.number: "),
        ("partition: x", "study.yaml:5: partition: "),
        ("partition:\n  data: .", "study.yaml:5: partition.by: this key is required"),
        ("partition:\n  data: .\n  by: {}", "study.yaml:7: partition.by: give one of: column | sites | sizes |"),
        ("partition:\n  data: .\n  by: {colum: a}", "partition.by.colum: unknown key. Did you mean 'column'?"),
        ("partition:\n  data: x\n  by: {sites: 2}", "study.yaml:6: partition.data: 'x' was not found"),
        ("partition:\n  data: .\n  by: {column: a}", "study.yaml:7: partition.by: "),
    ],
)
def test_mistakes_are_named_by_file_line_and_key(tmp_path: Path, section: str, message: str) -> None:
    assert message in error_of(tmp_path, section)


def test_other_labels_have_no_phantoms(tmp_path: Path) -> None:
    base = BASE.replace("kidneys", "spleen")
    with pytest.raises(StudyError, match=r"study\.yaml:2: data: phantoms have one channel and the labels liver, k"):
        simulated_sites(*written(tmp_path, "sites: {make: phantom}", base), None, tmp_path / "work")


def test_phantoms_for_one_of_the_labels(tmp_path: Path) -> None:
    base = BASE.replace("liver, kidneys", "kidneys")
    document, study = written(tmp_path, "sites: {make: phantom, number: 2, cases: 3}", base)
    sites = simulated_sites(document, study, None, tmp_path / "work")
    assert [(s.name, s.labels) for s in sites] == [("hospital-1", {"kidneys": 2}), ("hospital-2", {"kidneys": 2})]
    assert all(len(find_cases(site, 1)) == 3 for site in sites)


def test_partition_of_a_folder(tmp_path: Path) -> None:
    make_phantom(tmp_path / "data", sites=1, cases=6, dimensions=2)
    section = """\
        partition:
          data: data/hospital-1
          by: {sizes: {large: 2, small: 1}}
          test_only: [small]
        """
    large, small = simulated_sites(*written(tmp_path, section), None, tmp_path / "work")
    assert (large.name, large.use, len(find_cases(large, 1))) == ("large", "train", 4)
    assert (small.name, small.use, len(find_cases(small, 1))) == ("small", "test", 2)


def test_test_only_names_a_site(tmp_path: Path) -> None:
    make_phantom(tmp_path / "data", sites=1, cases=3, dimensions=2)
    section = "partition:\n  data: data/hospital-1\n  by: {sites: 2}\n  test_only: [site-1, site-3]\n"
    assert error_of(tmp_path, section).startswith("study.yaml:8: partition.test_only.1: there is no site 'site-3'.")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("", [("fedavg", {}), ("fedprox", {"mu": 0.01})]),
        ("strategy: {name: fedprox, mu: 0.5}", [("fedavg", {}), ("fedprox", {"mu": 0.01}), ("fedprox", {"mu": 0.5})]),
        ("compare: []", [("fedavg", {})]),
        ("compare: [{name: fedprox, mu: 1}]", [("fedprox", {"mu": 1.0}), ("fedavg", {})]),
        ("compare: [fedavg, fedavg]", [("fedavg", {})]),
        ("compare: [leave_one_out]", [("fedavg", {})]),
    ],
)
def test_what_is_compared(tmp_path: Path, section: str, expected: list[tuple[str, dict[str, float]]]) -> None:
    choices = compared(*written(tmp_path, section))
    assert [(c.name, c.options) for c in choices] == expected


SITES = [SiteConfig(name=name, data=Path()) for name in "abc"]


@pytest.mark.parametrize(
    ("section", "strategy", "number", "says"),
    [
        ("compare:\n  - fedavg\n  - leave_one_out", "", 2, "study.yaml:7: compare.1: needs three sites that train"),
        ("compare: [leave_one_out]", "strategy: fedbn\n", 3, "compare.0: with fedbn sites keep layers"),
    ],
)
def test_when_no_site_can_be_left_out(tmp_path: Path, section: str, strategy: str, number: int, says: str) -> None:
    document, study = written(tmp_path, section, BASE + strategy)
    with pytest.raises(StudyError, match=re.escape(says)):
        leaves_one_out(document, study, SITES[:number])


def test_a_site_is_left_out_only_where_the_study_says_so(tmp_path: Path) -> None:
    document, study = written(tmp_path / "a", "compare: [leave_one_out]")
    assert leaves_one_out(document, study, SITES)
    document, study = written(tmp_path / "b", "compare: [fedavg]")
    assert not leaves_one_out(document, study, SITES)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("compare: [fedavgg]", "unknown strategy 'fedavgg'. Did you mean 'fedavg'? Known: fedavg, fedprox"),
        ("compare:\n  - fedavg\n  - {name: fedprox, nu: 1}", "study.yaml:7: compare.1"),
        ("compare: fedavg", "study.yaml:5: compare: "),
    ],
)
def test_mistakes_in_what_is_compared(tmp_path: Path, section: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        compared(*written(tmp_path, section))
    assert message in str(caught.value)


def test_sections_of_the_simulation_stand_outside_the_digest(tmp_path: Path) -> None:
    _, plain = written(tmp_path, "")
    _, simulated = written(tmp_path, "sites: {make: phantom}\ncompare: []")
    assert plain.digest() == simulated.digest()


@pytest.mark.parametrize("path", [*EXAMPLES, PHANTOM], ids=lambda p: p.stem)
def test_examples_are_valid_studies(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert study.rounds.number * (study.training.steps or 0) <= 1200
    assert compared(Document.read(path), study) == (
        Choice(name="fedavg"), Choice.model_validate({"name": "fedprox", "mu": 0.01}),
    )  # fmt: skip


def test_there_are_examples() -> None:
    assert {p.stem for p in EXAMPLES} >= {"lungs-xray", "nodules-ct", "hippocampus-mr"}


@pytest.mark.data
@pytest.mark.parametrize(
    ("example", "counts"),
    [
        # Cases per site as the data's own description gives them.
        ("lungs-xray", {"montgomery": 83, "shenzhen": 114}),
        ("nodules-ct", {"ge": 419, "siemens": 106, "philips": 66, "toshiba": 4}),
        ("hippocampus-mr", {"group-mid": 101, "group-byte": 35, "group-large": 20}),
    ],
)
def test_examples_find_the_real_scans(example: str, counts: dict[str, int], fedscan_data: Path, tmp_path: Path) -> None:
    document = Document.read(ROOT / "examples" / f"{example}.yaml")
    sites = simulated_sites(document, study_of(document), fedscan_data, tmp_path)
    found = {site.name: find_cases(site, 1) for site in sites}
    assert {name: len(cases) for name, cases in found.items()} == counts
    assert all(case.label is not None and case.label.exists() for cases in found.values() for case in cases)


@pytest.mark.parametrize(("number", "fits"), [(33_333, True), (33_334, False)])
def test_pooled_training_of_all_sites_is_a_study_too(tmp_path: Path, number: int, fits: bool) -> None:
    """Of four sites three train; what fits is what a study file of the pooled arm may say."""
    document, study = written(tmp_path, f"rounds: {{number: {number}}}")
    sites = [*SITES, SiteConfig(name="d", data=Path(), use="test")]
    (pooled,) = (a.study for a in arms(study, [study.strategy], ["a", "b", "c"]) if a.method == "pooled_kt")
    if fits:
        pooled_fits(document, study, sites)
        assert Study.model_validate_json(pooled.model_dump_json()) == pooled
        return
    with pytest.raises(StudyError, match=r"study\.yaml:5: rounds\.number: .* take 33333 or fewer, with more training"):
        pooled_fits(document, study, sites)
    with pytest.raises(ValidationError, match="less than or equal to 100000"):
        Study.model_validate_json(pooled.model_dump_json())


def test_too_many_pooled_rounds_are_refused_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: object) -> Path:
        raise AssertionError("the simulation began")

    monkeypatch.setattr("simulations.console.simulate", trained)
    base = BASE.replace("[32, 32]", "[64, 64]")
    written(tmp_path, "rounds: {number: 30000}\nsites: {make: phantom, number: 4, cases: 3}", base)
    with pytest.raises(StudyError, match="4 × 30000 rounds, and 100000 are the most; take 25000 or fewer"):
        console.run(tmp_path / "study.yaml", None, tmp_path / "out", "inline", 1, False)
