"""Finds the cases of a site, however they lie there."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from client.data.bids import bids
from client.data.layouts import folders, msd, nnunet
from client.data.tables import cases_in, held_out, lists_images, table_in
from client.data.volume import Case, Finding
from client.site import SiteConfig
from common.errors import DataError

_log = logging.getLogger(__name__)

# In the order in which `auto` tries them: the more particular first.
LAYOUTS: dict[str, tuple[Callable[[Path, int, Sequence[str]], list[Case] | None], str]] = {
    "nnunet": (nnunet, "imagesTr/NAME_0000.nii.gz with labelsTr/NAME.nii.gz"),
    "msd": (msd, "dataset.json with a list `training`"),
    "bids": (bids, "sub-*/anat/*.nii.gz with derivatives/*/sub-*/anat/*_dseg.nii.gz"),
    "folders": (folders, "images/ and labels/ with equal file names"),
}
_TABLE = "a table: cases.csv or datalist.json in the folder, or the path of a .csv or .json file itself"


def find_cases(site: SiteConfig, channels: int, names: Sequence[str] = ()) -> list[Case]:
    """The cases of `site`, sorted by id; cases without annotation have the label None.

    Files are listed, not opened: a case whose file is missing or damaged is found out when it is read.

    Patients are what tables and BIDS name. Where nothing names them (nnU-Net, the Decathlon, folders without a
    `cases.csv` above, tables without such a column) every case counts as a patient of its own, and two scans of one
    person may come to stand in training and in test: such sites should list their cases in a table with `patient`.

    Args:
        site: Says where they lie (`data`), how (`layout`) and, for tables, which (`where`).
        channels: Number of image channels of the study, for layouts with one file per channel.
        names: The channels' names, by which a BIDS data set with several kinds of images is read.

    Raises:
        DataError: There is nothing at `site.data`, or nothing that any layout knows; says what was looked for.
    """
    layout, cases = recognise(site, channels, names)
    twice = [id_ for id_, times in Counter(case.id for case in cases).items() if times > 1]
    if twice:
        raise DataError(f"{site.data}: the case {twice[0]} exists twice. Rename one of the two.")
    _log.info("layout %s: %d cases", layout, len(cases))
    return sorted(cases, key=lambda case: case.id)


def recognise(site: SiteConfig, channels: int, names: Sequence[str] = ()) -> tuple[str, list[Case]]:
    """The layout that fits `site.data` (or the one that the site names) and its cases; raises as `find_cases`."""
    if not site.data.exists():
        raise DataError(f"{site.data}: no such folder or file. Correct `data` in the file of site {site.name}.")
    if table := _table(site):
        return "table", cases_in(table, site.where)
    if site.where:
        raise DataError(
            f"{site.data}: `where` chooses rows of a table, and there is none. Point `data` to it, or drop `where`."
        )
    layouts = list(LAYOUTS) if site.layout == "auto" else [site.layout] if site.layout in LAYOUTS else []
    for name in layouts:
        cases = LAYOUTS[name][0](site.data, channels, names)
        if cases:
            return name, cases
    looked = [LAYOUTS[name][1] for name in layouts] + ([_TABLE] if site.layout in ("auto", "table") else [])
    raise DataError(f"{site.data}: no cases found. Looked for: {'; '.join(looked)}.")


def left_out(site: SiteConfig) -> list[Finding]:
    """`held-out`: the site's datalist has lists beside `training`; `find_cases` leaves their entries out."""
    table = _table(site)
    lists = held_out(table) if table else {}
    if not lists:
        return []
    what = f"{table}: {', '.join(f'{number} under `{name}`' for name, number in lists.items())} are left out"
    remedy = (
        "Only `training` is read, and divided into training, validation and test anew. To test on the others, list "
        "them in a table of their own, for a site with use: test."
    )
    return [Finding("held-out", "warning", "", what, remedy)]


def _table(site: SiteConfig) -> Path | None:
    """The table that lists the cases of `site`, if its layout is one."""
    table = table_in(site.data) if site.layout in ("auto", "table") else None
    if table and (table == site.data or site.layout == "table" or lists_images(table)):
        return table
    return None
