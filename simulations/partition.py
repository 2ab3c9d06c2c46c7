"""Split one data set into sites, whole patients only.

By a column of its table, the sites are what the data set itself says: hospital, scanner, export. The other ways make
sites up: at random, at random with unequal sizes, or skewed by what the labels hold.
"""

import csv
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.stats import rankdata

from client.data.catalogue import look
from client.data.labels import label_map
from client.data.readers import read
from client.data.tables import NAMES, patient_of, read_rows, table_in
from client.data.volume import Case, Source
from client.label_rules import LabelRule
from client.site import SiteConfig
from common.errors import DataError, StudyError
from common.registry import did_you_mean
from common.section import Name, Section
from common.seeds import generator
from common.study import Study

_log = logging.getLogger(__name__)

Share = Annotated[float, Field(gt=0)]
Groups = dict[str, list[Case]]
Content = Mapping[str, NDArray[np.float64]]


class By(Section):
    """What makes the sites; exactly one of `column`, `sizes`, `dirichlet` with `sites`, or `sites` alone.

    Attributes:
        column: Every value of this column of the table is a site.
        sites: Number of sites, at random and alike.
        sizes: Shares of the patients, e.g. `[6, 3, 1]`, or by site name `{large: 6, small: 1}`.
        dirichlet: Concentration of the Dirichlet distribution from which each site draws what its patients' labels
            hold: 100 is nearly alike, 0.1 gives each site nearly one kind.
    """

    column: str | None = None
    sites: Annotated[int, Field(ge=2, le=1000)] | None = None
    sizes: tuple[Share, ...] | dict[Name, Share] | None = None
    dirichlet: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = self.model_fields_set
        if given not in ({"column"}, {"sites"}, {"sizes"}, {"dirichlet", "sites"}):
            raise ValueError("give one of: column | sites | sizes | dirichlet and sites")
        if self.sizes is not None and len(self.sizes) < 2:
            raise ValueError("sizes: at least two sites are needed")
        return self


class Partition(Section):
    """The section `partition:` of a study file.

    Attributes:
        data: Folder or table of the data set.
        by: What makes the sites.
        labels: As in a site file, the same for all sites.
        layout: As in a site file.
        test_only: Sites that are never trained on.
        seed: Of everything drawn here; apart from the study's seed, so that other seeds train on the same sites.
    """

    data: Path
    by: By
    labels: dict[str, LabelRule] = Field(default_factory=dict)
    layout: Literal["auto", "nnunet", "msd", "bids", "table", "folders"] = "auto"
    test_only: tuple[Name, ...] = ()
    seed: int = Field(1, ge=0, lt=2**31)

    def use_of(self, site: str) -> Literal["train", "test"]:
        """What the site named `site` is for."""
        return "test" if site in self.test_only else "train"


def sites_by_column(partition: Partition, data: Path) -> list[SiteConfig]:
    """One site per value of the column `partition.by.column` of the table that `data` is or holds, the largest first.

    Raises:
        StudyError: The table or the column is missing, a cell is empty, or a patient is in two sites.
        DataError: The table cannot be read.
    """
    column = str(partition.by.column)
    table = table_in(data)
    if table is None:
        raise StudyError(f"{data}: partition by a column needs a table ({', '.join(NAMES)}, or the path of one)")
    rows = read_rows(table)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if column not in columns:
        hint = did_you_mean(column, columns)
        raise StudyError(f"{table}: there is no column '{column}'.{hint} Columns: {', '.join(columns)}")
    home: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        value = str(row.get(column) or "")
        if not value:
            raise StudyError(f"{table}: row {number}: the column '{column}' is empty; every row needs its site")
        patient = patient_of(row)
        if patient and home.setdefault(patient, value) != value:
            raise StudyError(f"{table}: row {number}: patient {patient} is in '{home[patient]}' and in '{value}'; "
                             "all rows of a patient must be of one site")  # fmt: skip
    counts = Counter(str(row[column]) for row in rows)
    names = {value: site_name(value) for value in sorted(counts, key=lambda v: (-counts[v], v))}
    if len(set(names.values())) < len(names):
        raise StudyError(f"{table}: two values of '{column}' give the same site name: {', '.join(names)}")
    return [
        SiteConfig(name=name, data=table, layout="table", where={column: value}, labels=partition.labels,
                   use=partition.use_of(name))
        for value, name in names.items()
    ]  # fmt: skip


def sites_by_split(partition: Partition, data: Path, study: Study, folder: Path) -> list[SiteConfig]:
    """The sites of every other way than a column; writes one table per site, `folder`/SITE.csv.

    Raises:
        StudyError: There are fewer patients than sites.
        DataError: No cases were found, or (for `dirichlet`) a label map cannot be read.
    """
    whole = SiteConfig(name="whole", data=data, layout=partition.layout, labels=partition.labels)
    found = look(whole, len(study.data.channels), study.data.channels)
    cases = found.cases
    # The sites' own tables list what was found, so that only here it can be said what was not.
    for finding in found.findings:
        _log.warning("%s. %s", finding.what, finding.remedy)
    rng = generator(partition.seed, "partition")
    by = partition.by
    if by.sizes is not None:
        groups = split_by_size(cases, by.sizes if isinstance(by.sizes, dict) else _numbered(by.sizes), rng)
    elif by.dirichlet is not None:
        patients = by_patient(cases)
        amounts = {p: np.sum([label_amounts(c, whole, study) for c in own], axis=0) for p, own in patients.items()}
        groups = split_by_content(cases, amounts, by.sites or 0, by.dirichlet, rng)
    else:
        groups = split_by_size(cases, _numbered([1.0] * (by.sites or 0)), rng)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        SiteConfig(name=name, data=_write_table(folder / f"{name}.csv", own), layout="table",
                   labels=partition.labels, use=partition.use_of(name))
        for name, own in groups.items()
    ]  # fmt: skip


def split_by_size(cases: Sequence[Case], shares: Mapping[str, float], rng: np.random.Generator) -> Groups:
    """Patients at random, each site getting its share of them in whole patients, and at least one."""
    patients = by_patient(cases)
    _enough(len(patients), len(shares))
    wanted = np.array(list(shares.values())) / sum(shares.values()) * len(patients)
    counts = np.floor(wanted).astype(int)
    # Largest remainders first, so that no site is more than one patient off its share...
    for i in np.argsort(counts - wanted, kind="stable")[: len(patients) - counts.sum()]:
        counts[i] += 1
    # ... except that a site without any patient takes one from the largest.
    for i in np.flatnonzero(counts == 0):
        counts[counts.argmax()] -= 1
        counts[i] = 1
    order = iter(rng.permutation(sorted(patients)).tolist())
    return {
        name: [case for _ in range(count) for case in patients[next(order)]]
        for name, count in zip(shares, counts, strict=True)
    }


def split_by_content(
    cases: Sequence[Case], amounts: Content, sites: int, alpha: float, rng: np.random.Generator
) -> Groups:
    """Patients by what their labels hold, as Hsu et al. (2019, arXiv 1909.06335, section 3) do with classes.

    Each site draws its own mixture of the kinds of patients from a Dirichlet distribution around the data set's
    mixture, then the sites take turns to draw a patient of a kind from it, without replacement. All sites are of
    equal size (to one patient).

    Args:
        cases: All cases.
        amounts: By patient, `(labels,)` amount of each label.
        sites: Number of sites.
        alpha: Concentration.
        rng: Source of chance.
    """
    patients = by_patient(cases)
    _enough(len(patients), sites)
    kinds = kinds_of(amounts)
    pools = {
        kind: rng.permutation(sorted(p for p in patients if kinds[p] == kind)).tolist()
        for kind in sorted(set(kinds.values()))
    }
    prior = np.array([len(pool) for pool in pools.values()]) / len(patients)
    mixtures = rng.dirichlet(alpha * prior, size=sites) if len(pools) > 1 else np.ones((sites, 1))
    groups: Groups = {name: [] for name in _numbered([1.0] * sites)}
    for turn in range(len(patients)):
        left = np.array([len(pool) > 0 for pool in pools.values()])
        wish = mixtures[turn % sites] * left
        # A site whose kinds have run out takes what is left, as it comes.
        chance = wish / wish.sum() if wish.sum() > 0 else left * prior / (left * prior).sum()
        kind = list(pools)[rng.choice(len(pools), p=chance)]
        groups[list(groups)[turn % sites]] += patients[pools[kind].pop()]
    return groups


def kinds_of(amounts: Content) -> dict[str, int]:
    """Each patient's kind: the label of which it has more than its fellows, or 0 for little of everything.

    Amounts are compared by their rank among all patients, so that a label of small structures counts as much as one
    of large ones, and a data set of one label still has two kinds: little and much.
    """
    patients = sorted(amounts)
    # (patients, labels), the share of patients that have less
    ranks = (rankdata([amounts[p] for p in patients], method="min", axis=0) - 1) / len(patients)
    return {p: int(row.argmax()) + 1 if row.max() >= 0.5 else 0 for p, row in zip(patients, ranks, strict=True)}


def label_amounts(case: Case, site: SiteConfig, study: Study) -> NDArray[np.float64]:
    """`(labels,)` volume of each study label in `case`, mm³ (mm² or pixels for pictures); 0 without annotation."""
    if case.label is None:
        return np.zeros(len(study.data.labels))
    volume = read(case.label, label=True)
    label = label_map(study.data.labels, site.labels, study.data.ignore, site.ignored).apply(volume.array)
    voxels = np.bincount(label.ravel(), minlength=study.classes)[1 : study.classes].astype(np.float64)
    return voxels * np.prod(volume.spacing, dtype=np.float64)


def by_patient(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The cases of each patient, in order of the cases' ids."""
    patients: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda c: c.id):
        patients.setdefault(case.patient, []).append(case)
    return patients


def site_name(value: str) -> str:
    """`value` as the name of a site: `GE MEDICAL SYSTEMS` -> `ge-medical-systems`."""
    name = re.sub(r"[^a-z0-9_]+", "-", value.lower()).strip("-_")[:63]
    if not name:
        raise StudyError(f"'{value}' cannot be the name of a site: it needs a letter a-z or a digit")
    return name


def _numbered(shares: Sequence[float]) -> dict[str, float]:
    digits = len(str(len(shares)))
    return {f"site-{i + 1:0{digits}}": share for i, share in enumerate(shares)}


def _enough(patients: int, sites: int) -> None:
    if patients < sites:
        raise StudyError(f"{patients} patients cannot be split into {sites} sites")


def _file(image: Source) -> Path:
    if isinstance(image, Path):
        return image
    raise DataError(f"{image}: a table cannot name a volume of a DICOM series. Give each site a folder of its own.")


def _write_table(path: Path, cases: Sequence[Case]) -> Path:
    """A table of `cases` that the catalogue reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "patient", "case"])
        for case in cases:
            images = ";".join(str(_file(image).resolve()) for image in case.images)
            writer.writerow([images, case.label.resolve() if case.label else "", case.patient, case.id])
    return path
