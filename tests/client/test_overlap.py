"""Scans and patients that two sites share: every pair of parts, by hand."""

from pathlib import Path

import pytest

from client.data.overlap import duplicates_between
from client.data.volume import CachedCase, SiteData


def case(id_: str, image: str, patient: str = "") -> CachedCase:
    return CachedCase(id_, patient or id_, Path(), f"key of {id_}", image)


def site(**parts: tuple[CachedCase, ...]) -> SiteData:
    return SiteData(**{"train": (), "validation": (), "test": (), **parts})  # type: ignore[arg-type]


def test_sites_with_nothing_in_common() -> None:
    sites = {name: site(train=(case("c1", f"{name}1"),), test=(case("c2", f"{name}2"),)) for name in "ab"}
    # Numbered files are called alike everywhere: equal names of cases say nothing.
    sites["c"] = site(train=(case("c2", "c2"),), test=(case("c1", "c1"),))
    assert duplicates_between(sites) == []
    # One patient's scan twice at one site is in one part there.
    assert duplicates_between({"a": site(train=(case("x", "1", "p"), case("y", "1", "p")))}) == []


@pytest.mark.parametrize("one", ["train", "validation", "test"])
@pytest.mark.parametrize("two", ["train", "validation", "test"])
def test_one_scan_at_two_sites(one: str, two: str) -> None:
    sites = {"a": site(**{one: (case("x", "same"),)}), "b": site(**{two: (case("y", "same"), case("z", "other"))})}
    (finding,) = duplicates_between(sites)
    assert (finding.code, finding.case) == ("image-elsewhere", "b/y")
    assert finding.severity == ("warning" if one == two else "error")
    assert finding.what == f"y of site b ({two}) is the same image as x of site a ({one})"


def test_a_leak_is_found_wherever_it_stands() -> None:
    sites = {"a": site(train=(case("x", "1"),)), "b": site(train=(case("y", "1"),)), "c": site(test=(case("z", "1"),))}
    for order in (["a", "b", "c"], ["c", "a", "b"], ["a", "c", "b"]):
        findings = duplicates_between({name: sites[name] for name in order})
        assert len(findings) == 2
        assert "error" in {finding.severity for finding in findings}


def test_patients_of_one_name_in_different_parts() -> None:
    a = site(train=(case("s1", "1", "p1"), case("s2", "2", "p2")), test=(case("s3", "3", "p3"),))
    b = site(train=(case("s4", "4", "p2"),), test=(case("s5", "5", "p1"), case("s6", "6", "p3")))
    (finding,) = duplicates_between({"a": a, "b": b})
    assert (finding.code, finding.severity, finding.case) == ("patient-elsewhere", "warning", "")
    assert finding.what == "sites a and b have patients of the same name in different parts: p1 (train, test)"
