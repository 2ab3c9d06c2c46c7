"""What two sites of a simulation have in common, where one trains on what the other is tested on."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from client.data.split import PARTS
from client.data.volume import CachedCase, Finding, SiteData
from common.section import Part

# Names of patients that one finding shows.
_SHOWN = 5


class _Place(NamedTuple):
    site: str
    part: Part
    case: CachedCase

    def __str__(self) -> str:
        return f"{self.case.id} of site {self.site} ({self.part})"


def duplicates_between(sites: Mapping[str, SiteData]) -> list[Finding]:
    """Scans and patients that are in more than one of `sites`.

    Each site divides its own patients, so a scan that two sites hold may be trained on at one and tested at the other;
    the test then measures memory. Only who sees all sites can find that out: a simulation, never a federation, where
    nothing that tells one scan from another leaves a site. A simulation should call this once all its sites are
    prepared and before anything is trained, refuse to run if there is an error, and show the warnings. The union of
    the sites for pooled training must not be among `sites`.

    Scans are compared by their voxels (`CachedCase.image`). Patients are compared by name, and only where a name is
    not merely the case's own, because numbered files are called alike everywhere.

    Args:
        sites: By name of the site, its prepared cases.

    Returns:
        `image-elsewhere`: the scan of an earlier site; an error where the two are in different parts (training,
        validation, test), else a warning, since it counts twice. `patient-elsewhere`: a warning per pair of sites
        with patients of the same name in different parts. Names cases and patients: for the machine of the
        simulation only. Empty if all is well.
    """
    places = [place for name, data in sites.items() for place in _places(name, data)]
    return _images(places) + _patients(sites, places)


def _places(site: str, data: SiteData) -> Iterator[_Place]:
    for part in PARTS:
        yield from (_Place(site, part, case) for case in getattr(data, part))


def _images(places: list[_Place]) -> list[Finding]:
    first: dict[str, _Place] = {}
    findings = []
    for place in places:
        other = first.setdefault(place.case.image, place)
        if other.site != place.site:
            severity = "warning" if other.part == place.part else "error"
            what = f"{place} is the same image as {other}"
            remedy = f"Leave it out at one of the two sites, or make {other.site} and {place.site} one site."
            findings.append(Finding("image-elsewhere", severity, f"{place.site}/{place.case.id}", what, remedy))
    return findings


def _patients(sites: Mapping[str, SiteData], places: list[_Place]) -> list[Finding]:
    parts: dict[str, dict[str, Part]] = {name: {} for name in sites}
    named = {place.case.patient for place in places if place.case.patient != place.case.id}
    for site, part, case in places:
        if case.patient in named:
            parts[site][case.patient] = part
    findings = []
    for one, two in combinations(sites, 2):
        both = sorted(p for p in parts[one].keys() & parts[two].keys() if parts[one][p] != parts[two][p])
        if both:
            shown = ", ".join(f"{p} ({parts[one][p]}, {parts[two][p]})" for p in both[:_SHOWN])
            more = f" and {len(both) - _SHOWN} more" if len(both) > _SHOWN else ""
            what = f"sites {one} and {two} have patients of the same name in different parts: {shown}{more}"
            remedy = "If they are the same people, keep each at one site; else nothing is wrong."
            findings.append(Finding("patient-elsewhere", "warning", "", what, remedy))
    return findings
