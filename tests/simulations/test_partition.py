"""Splits against counting by hand, closed forms, nibabel and the published case counts of the real data."""

import json
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from client.data.catalogue import find_cases
from client.data.volume import Case
from client.site import SiteConfig
from common.errors import StudyError
from common.seeds import generator
from common.study import Study
from simulations.partition import (
    By,
    Partition,
    kinds_of,
    label_amounts,
    site_name,
    sites_by_column,
    sites_by_split,
    split_by_content,
    split_by_size,
)
from simulations.phantom import make_phantom

STUDY = Study.model_validate(
    {
        "name": "test",
        "data": {"labels": ["liver", "kidneys"]},
        "plan": {"patch": [32, 32, 32]},
        "training": {"steps": 1},
    }
)


def cases(patients: int, each: int = 1) -> list[Case]:
    return [
        Case(f"p{p:03d}-{i}", f"p{p:03d}", (Path(f"p{p}-{i}.nii"),), None) for p in range(patients) for i in range(each)
    ]


def patients_of(group: list[Case]) -> set[str]:
    return {case.patient for case in group}


def table(folder: Path, *rows: str, header: str = "image,label,patient,hospital") -> Path:
    path = folder / "cases.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@settings(deadline=None)  # a machine that others use too is slow at times
@given(
    patients=st.integers(2, 60),
    each=st.integers(1, 3),
    shares=st.lists(st.floats(0.01, 100), min_size=2, max_size=8),
    seed=st.integers(0, 1000),
)
def test_sizes_deal_out_every_patient_once(patients: int, each: int, shares: list[float], seed: int) -> None:
    named = {f"s{i}": share for i, share in enumerate(shares)}
    everything = cases(patients, each)
    if patients < len(shares):
        with pytest.raises(StudyError, match="cannot be split"):
            split_by_size(everything, named, generator(seed))
        return
    groups = split_by_size(everything, named, generator(seed))
    assert sorted(c.id for g in groups.values() for c in g) == sorted(c.id for c in everything)
    counts = [len(patients_of(g)) for g in groups.values()]
    assert sum(counts) == patients
    assert min(counts) >= 1
    wanted = [share / sum(shares) * patients for share in shares]
    if min(wanted) >= 1:
        assert all(abs(count - want) < 1 + 1e-9 for count, want in zip(counts, wanted, strict=True))


def test_sizes_by_hand() -> None:
    def counts(patients: int, *shares: float) -> list[int]:
        named = {str(i): share for i, share in enumerate(shares)}
        return [len(g) for g in split_by_size(cases(patients), named, generator(1)).values()]

    assert counts(10, 6, 3, 1) == [6, 3, 1]
    assert counts(10, 1, 1, 1) == [4, 3, 3]
    assert counts(10, 98, 1, 1) == [8, 1, 1]


def test_a_split_does_not_depend_on_the_order_of_the_cases() -> None:
    everything = cases(20, 2)
    one, two = (split_by_size(c, {"a": 1, "b": 1}, generator(3)) for c in (everything, everything[::-1]))
    assert one == two
    assert one != split_by_size(everything, {"a": 1, "b": 1}, generator(4))


def test_kinds_by_hand() -> None:
    amounts = {"a": [900.0, 1.0], "b": [800.0, 9.0], "c": [100.0, 8.0], "d": [0.0, 0.0]}
    # Ranks of label 1: a .75, b .5, c .25, d 0; of label 2: b .75, c .5, a .25, d 0.
    assert kinds_of({p: np.array(v) for p, v in amounts.items()}) == {"a": 1, "b": 2, "c": 2, "d": 0}


def test_one_label_still_has_two_kinds() -> None:
    kinds = kinds_of({f"p{i}": np.array([float(i)]) for i in range(10)})
    assert Counter(kinds.values()) == {0: 5, 1: 5}


def test_patients_that_hold_the_same_are_of_one_kind() -> None:
    assert set(kinds_of({f"p{i}": np.array([0.0, 0.0]) for i in range(4)}).values()) == {0}


@pytest.mark.parametrize("alpha", [0.01, 1.0, 1000.0])
def test_dirichlet_deals_out_every_patient_once_and_equally(alpha: float) -> None:
    everything = cases(31, 2)
    groups = split_by_content(everything, _two_kinds(31), 4, alpha, generator(1))
    assert sorted(c.id for g in groups.values() for c in g) == sorted(c.id for c in everything)
    assert [len(patients_of(g)) for g in groups.values()] == [8, 8, 8, 7]
    assert list(groups) == ["site-1", "site-2", "site-3", "site-4"]


def test_dirichlet_concentration_sets_the_skew() -> None:
    """Two sites share out two kinds of equal number; the share of one kind at a site has a known variance.

    At α -> 0 each site wants one kind only. With probability 1/2 they want different ones and get them (shares 0 and
    1), else both run dry and meet at 1/2: variance 1/2 · 1/4. At α -> ∞ 100 patients are drawn of a fixed mixture:
    at most the binomial variance 1/4 / 100.
    """

    def variance(alpha: float) -> float:
        amounts = _two_kinds(200)
        kinds = kinds_of(amounts)
        splits = [split_by_content(cases(200), amounts, 2, alpha, generator(seed)) for seed in range(100)]
        return float(np.var([np.mean([kinds[p] for p in patients_of(g)]) for s in splits for g in s.values()]))

    assert variance(1e6) < 0.0025
    # 100 throws of a coin that is worth 1/4: a standard error of 0.0125
    assert variance(1e-3) == pytest.approx(0.125, abs=0.03)
    assert variance(1e6) < variance(2.0) < variance(1e-3)


def _two_kinds(patients: int) -> dict[str, np.ndarray]:
    return {f"p{p:03d}": np.array([float(p)]) for p in range(patients)}


def test_label_amounts_are_volumes(tmp_path: Path) -> None:
    hospital = make_phantom(tmp_path, sites=2, cases=2)[1]
    site = SiteConfig(name="a", data=hospital)
    for case in find_cases(site, 1):
        image = nibabel.load(case.label)
        voxels = [(np.asarray(image.dataobj) == value).sum() for value in (1, 2)]
        expected = np.array(voxels) * np.prod(image.header.get_zooms())
        np.testing.assert_allclose(label_amounts(case, site, STUDY), expected, rtol=1e-5)


def test_voxels_without_a_label_have_no_volume(tmp_path: Path) -> None:
    hospital = make_phantom(tmp_path, sites=1, cases=1)[0]
    (case,) = find_cases(SiteConfig(name="a", data=hospital), 1)
    image = nibabel.load(case.label)
    stored = np.asarray(image.dataobj).astype(np.uint8)
    stored[stored == 2] = 255
    nibabel.save(nibabel.Nifti1Image(stored, image.affine), case.label)
    sparse = STUDY.model_copy(update={"data": STUDY.data.model_copy(update={"ignore": 255})})
    amounts = label_amounts(case, SiteConfig(name="a", data=hospital), sparse)
    expected = [(stored == 1).sum() * np.prod(image.header.get_zooms()), 0]
    np.testing.assert_allclose(amounts, expected, rtol=1e-5)


@pytest.mark.parametrize("by", [{"sites": 2}, {"sizes": [3, 1]}, {"dirichlet": 0.5, "sites": 2}])
def test_written_tables_hold_the_cases(tmp_path: Path, by: dict[str, object]) -> None:
    hospital = make_phantom(tmp_path / "data", sites=1, cases=5)[0]
    partition = Partition.model_validate({"data": hospital, "by": by, "test_only": ["site-2"]})
    sites = sites_by_split(partition, hospital, STUDY, tmp_path / "tables")
    assert [(s.name, s.use) for s in sites] == [("site-1", "train"), ("site-2", "test")]
    found = [case for site in sites for case in find_cases(site, 1)]
    assert sorted(found, key=lambda c: c.id) == find_cases(SiteConfig(name="all", data=hospital), 1)


def test_tables_keep_several_channels(tmp_path: Path) -> None:
    for folder, ending in (("imagesTr", "_0000"), ("imagesTr", "_0001"), ("labelsTr", "")):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("a", "b"):
            (tmp_path / folder / f"{name}{ending}.nii.gz").touch()
    study = STUDY.model_copy(update={"data": STUDY.data.model_copy(update={"channels": ("t1", "t2")})})
    partition = Partition.model_validate({"data": tmp_path, "by": {"sites": 2}})
    sites = sites_by_split(partition, tmp_path, study, tmp_path / "tables")
    found = sorted((c for s in sites for c in find_cases(s, 2)), key=lambda c: c.id)
    assert found == find_cases(SiteConfig(name="all", data=tmp_path), 2)
    assert all(len(case.images) == 2 for case in found)


def test_channels_of_a_bids_data_set_go_by_name(tmp_path: Path) -> None:
    for subject in ("sub-1", "sub-2"):
        for folder, ending in ((".", "T1w"), (".", "FLAIR"), ("derivatives/manual", "dseg")):
            file = tmp_path / "bids" / folder / subject / "anat" / f"{subject}_{ending}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    study = STUDY.model_copy(update={"data": STUDY.data.model_copy(update={"channels": ("t1", "flair")})})
    partition = Partition.model_validate({"data": tmp_path / "bids", "by": {"sites": 2}})
    sites = sites_by_split(partition, tmp_path / "bids", study, tmp_path / "tables")
    found = sorted((c for s in sites for c in find_cases(s, 2)), key=lambda c: c.id)
    assert [[image.name.partition("_")[2] for image in case.images] for case in found] == [
        ["T1w.nii.gz", "FLAIR.nii.gz"]
    ] * 2


def test_what_a_datalist_keeps_apart_is_in_no_site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = {"training": ["a.nii", "b.nii"], "testing": ["c.nii"]}
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(lists))
    partition = Partition.model_validate({"data": path, "by": {"sites": 2}})
    sites = sites_by_split(partition, path, STUDY, tmp_path / "tables")
    assert sorted(c.id for s in sites for c in find_cases(s, 1)) == ["a", "b"]
    assert "1 under `testing` are left out" in caplog.text


def test_a_column_makes_one_site_per_value(tmp_path: Path) -> None:
    path = table(tmp_path, "a.nii,a2.nii,p1,Oslo Nord", "b.nii,b2.nii,p2,GE", "c.nii,c2.nii,p2,GE")
    partition = Partition.model_validate(
        {"data": path, "by": {"column": "hospital"}, "labels": {"liver": 7}, "test_only": ["oslo-nord"]}
    )
    ge, oslo = sites_by_column(partition, path)
    assert (ge.name, ge.use, [c.patient for c in find_cases(ge, 1)]) == ("ge", "train", ["p2", "p2"])
    assert (oslo.name, oslo.use, [c.id for c in find_cases(oslo, 1)]) == ("oslo-nord", "test", ["a"])
    assert ge.labels == {"liver": 7}


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        (["a,b,p1,x"], "hospitl", r"no column 'hospitl'. Did you mean 'hospital'\? Columns: image, label, patient"),
        (["a,b,p1,x", "c,d,p1,y"], "hospital", "row 2: patient p1 is in 'x' and in 'y'"),
        (["a,b,p1,x", "c,d,p2,"], "hospital", "row 2: the column 'hospital' is empty"),
        (["a,b,p1,X y", "c,d,p2,x-Y"], "hospital", "same site name"),
        (["a,b,p1,?!"], "hospital", "cannot be the name of a site"),
    ],
)
def test_tables_that_give_no_sites(tmp_path: Path, rows: list[str], column: str, message: str) -> None:
    path = table(tmp_path, *rows)
    with pytest.raises(StudyError, match=message):
        sites_by_column(Partition.model_validate({"data": path, "by": {"column": column}}), path)


def test_a_column_needs_a_table(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="needs a table"):
        sites_by_column(Partition.model_validate({"data": tmp_path, "by": {"column": "x"}}), tmp_path)


@pytest.mark.parametrize(
    "by", [{}, {"dirichlet": 1}, {"column": "a", "sites": 2}, {"sizes": [1]}, {"sizes": [1, 0]}, {"sites": 1}]
)
def test_by_says_exactly_one_thing(by: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        By.model_validate(by)


@pytest.mark.parametrize(("value", "name"), [("GE MEDICAL SYSTEMS", "ge-medical-systems"), ("_No. 3_", "no-3")])
def test_site_names(value: str, name: str) -> None:
    assert site_name(value) == name


@pytest.mark.data
def test_nodules_split_by_manufacturer(fedscan_data: Path) -> None:
    path = fedscan_data / "lung-nodule-ct-3d" / "cases.csv"
    sites = sites_by_column(Partition.model_validate({"data": path, "by": {"column": "site"}}), path)
    counts = {site.name: len(find_cases(site, 1)) for site in sites}
    # The counts that the data's own description gives.
    assert counts == {"ge": 419, "siemens": 106, "philips": 66, "toshiba": 4}
    assert list(counts) == ["ge", "siemens", "philips", "toshiba"]
