"""Finds the cases of a site, however they lie there."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from client.data.bids import bids
from client.data.dicom.objects import Scan
from client.data.dicom.reading import is_dicom
from client.data.dicom.scan import Progress, scan
from client.data.dicom_layout import dicom_cases
from client.data.gate.codes import finding
from client.data.layouts import folders, msd, nnunet
from client.data.readers import suffix
from client.data.tables import cases_in, held_out, lists_images, table_in
from client.data.volume import Case, Finding, Stack
from client.site import SiteConfig
from common.errors import DataError

# In the site's folder: what the headers of its DICOM files say, and what its archives of them hold.
INDEX = "dicom-index.sqlite"
UNPACKED = "unpacked"

_log = logging.getLogger(__name__)

# In the order in which `auto` tries them: the more particular first.
LAYOUTS: dict[str, tuple[Callable[[Path, int, Sequence[str]], list[Case] | None], str]] = {
    "nnunet": (nnunet, "imagesTr/NAME_0000.nii.gz with labelsTr/NAME.nii.gz"),
    "msd": (msd, "dataset.json with a list `training`"),
    "bids": (bids, "sub-*/anat/*.nii.gz with derivatives/*/sub-*/anat/*_dseg.nii.gz"),
    "folders": (folders, "images/ and labels/ with equal file names"),
}
_TABLE = "a table: cases.csv or datalist.json in the folder, or the path of a .csv or .json file itself"


class Found(NamedTuple):
    """What lies at a site.

    Attributes:
        layout: How: a key of `LAYOUTS`, `table` or `dicom`.
        cases: Sorted by id; those without annotation have the label None.
        findings: What was seen and is no case, and why.
        stacks: Of a folder of DICOM: every volume in it, also those that are no case.
    """

    layout: str
    cases: tuple[Case, ...]
    findings: tuple[Finding, ...] = ()
    stacks: tuple[Stack, ...] = ()


def find_cases(site: SiteConfig, channels: int, names: Sequence[str] = ()) -> list[Case]:
    """The cases of `look`."""
    return list(look(site, channels, names).cases)


def look(site: SiteConfig, channels: int, names: Sequence[str] = (), home: Path | None = None,
         progress: Progress | None = None) -> Found:  # fmt: skip
    """What lies at a site, in the layout that fits `site.data` or the one that the site names.

    Files are listed, not opened (of DICOM the headers are read): a case whose file is missing or damaged is found out
    when it is read.

    Patients are what tables, BIDS and DICOM name. Where nothing names them (nnU-Net, the Decathlon, folders without a
    `cases.csv` above, tables without such a column) every case counts as a patient of its own, and two scans of one
    person may come to stand in training and in test: such sites should list their cases in a table with `patient`.

    Args:
        site: Says where they lie (`data`), how (`layout`) and, for tables, which (`where`); for DICOM, which series
            (`series`).
        channels: Number of image channels of the study, for layouts with one file per channel.
        names: The channels' names, by which a BIDS data set with several kinds of images, or DICOM, is read.
        home: The site's own folder, where the headers of DICOM files are remembered, and archives of them are
            unpacked; none remembers nothing and leaves archives out.
        progress: Called with (files done, files in all) while DICOM headers are read.

    Raises:
        DataError: There is nothing at `site.data`, or nothing that any layout knows; says what was looked for.
    """
    if not site.data.exists():
        raise DataError(f"{site.data}: no such folder or file. Correct `data` in the file of site {site.name}.")
    found = _read(site, channels, names, _scanner(home, progress))
    cases = [replace(case, id=_plain(case.id), patient=_plain(case.patient)) for case in found.cases]
    twice = [id_ for id_, times in Counter(case.id for case in cases).items() if times > 1]
    if twice:
        raise DataError(f"{site.data}: the case {twice[0]} exists twice. Rename one of the two.")
    _log.info("layout %s: %d cases", found.layout, len(cases))
    return found._replace(cases=tuple(sorted(cases, key=lambda case: case.id)))


def _plain(name: str) -> str:
    """A name that can be written and shown: the bytes of files' names need be no text, and may move a cursor."""
    text = os.fsencode(name).decode("latin-1") if any("\ud800" <= sign <= "\udfff" for sign in name) else name
    return "".join(sign if sign.isprintable() else "_" for sign in text)


def _scanner(home: Path | None, progress: Progress | None) -> Callable[[Path], Scan]:
    if home is None:
        return partial(scan, progress=progress)
    return partial(scan, index=home / INDEX, unpacked=home / UNPACKED, progress=progress)


def _read(site: SiteConfig, channels: int, names: Sequence[str], headers: Callable[[Path], Scan]) -> Found:
    if table := _table(site):
        cases, findings = _with_volumes(cases_in(table, site.where), headers)
        return Found("table", tuple(cases), (*_left_out(table), *findings))
    if site.where:
        raise DataError(
            f"{site.data}: `where` chooses rows of a table, and there is none. Point `data` to it, or drop `where`."
        )
    layouts = list(LAYOUTS) if site.layout == "auto" else [site.layout] if site.layout in LAYOUTS else []
    for name in layouts:
        if listed := LAYOUTS[name][0](site.data, channels, names):
            return Found(name, tuple(listed))
    if site.layout in ("auto", "dicom"):
        scanned = headers(site.data)
        cases, found = dicom_cases(scanned, site.series, names)
        # Where nothing can be used, what was found says why.
        if scanned.stacks or scanned.findings or found:
            return Found("dicom", tuple(cases), (*scanned.findings, *found), scanned.stacks)
    looked = [LAYOUTS[name][1] for name in layouts]
    looked += [_TABLE] if site.layout in ("auto", "table") else []
    looked += ["DICOM series, in any folders"] if site.layout in ("auto", "dicom") else []
    raise DataError(f"{site.data}: no cases found. Looked for: {'; '.join(looked)}.")


def _with_volumes(cases: Sequence[Case], headers: Callable[[Path], Scan]) -> tuple[list[Case], list[Finding]]:
    """What a table names of DICOM, a folder or a file, becomes the volume in it; none or several are a finding."""
    whole, findings = [], []
    for case in cases:
        folders = [image for image in case.images if isinstance(image, Path) and _holds_dicom(image)]
        volumes = {folder: headers(folder).stacks for folder in folders}
        wrong = next((folder for folder, stacks in volumes.items() if len(stacks) != 1), None)
        if wrong is not None:
            what = f"{wrong}: holds {len(volumes[wrong])} DICOM volumes; the table wants one"
            findings.append(finding("dicom-folder", case.id, what))
            continue
        images = tuple(volumes[i][0] if isinstance(i, Path) and i in volumes else i for i in case.images)
        whole.append(replace(case, images=images))
    return whole, findings


def _holds_dicom(image: Path) -> bool:
    return image.is_dir() or (suffix(image) is None and image.is_file() and is_dicom(image))


def _left_out(table: Path) -> list[Finding]:
    """`held-out`: a datalist has lists beside `training`; their entries are left out."""
    lists = held_out(table)
    if not lists:
        return []
    what = f"{table}: {', '.join(f'{number} under `{name}`' for name, number in lists.items())} are left out"
    return [finding("held-out", "", what)]


def _table(site: SiteConfig) -> Path | None:
    """The table that lists the cases of `site`, if its layout is one."""
    table = table_in(site.data) if site.layout in ("auto", "table") else None
    if table and (table == site.data or site.layout == "table" or lists_images(table)):
        return table
    return None
