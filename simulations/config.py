"""What a study file says for simulations only: its sites, or a data set to split, and what to compare."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from client.site import SiteConfig
from common.documents import Document, Location
from common.errors import StudyError
from common.names import STRATEGIES
from common.registry import did_you_mean
from common.section import Choice, Section
from common.study import Study
from common.study_training import MOST_ROUNDS
from common.traits import keeps_layers
from simulations.anatomy import ORGANS
from simulations.arms import LEAVE_ONE_OUT, POOLED
from simulations.dials import Dials
from simulations.partition import Partition, site_name, sites_by_column, sites_by_split
from simulations.phantom import Format, make_phantom

# Shown as rows of the comparison beside the sites.
RESERVED = (POOLED, "all")


def _checked(choice: Choice) -> Choice:
    if choice.name == LEAVE_ONE_OUT and not choice.options:
        return choice
    return choice.model_copy(update={"options": STRATEGIES.check(choice.name, choice.options)})


class Compared(Section):
    """The section `compare:`: strategies beside the study's own, and `leave_one_out` for that one at unseen sites."""

    compare: tuple[Annotated[Choice, AfterValidator(_checked)], ...] = Field(
        (Choice(name="fedavg"), Choice.model_validate({"name": "fedprox", "mu": 0.01})), validate_default=True
    )


class Phantoms(Section):
    """`sites: {make: phantom, ...}`: hospitals made up on the spot.

    Attributes:
        make: Always `phantom`.
        number: Number of hospitals.
        cases: Cases per hospital.
        difference: How much the hospitals differ: 0 not at all, 1 as real ones may.
        contrast: How far their grey value curves lie apart besides; 1 is much.
        rarity: Share of the patients of every second hospital who have no kidney.
        wrong_labels: Share of the last hospital's cases in which liver and kidneys bear each other's number.
        seed: Of patients and scanners.
        format: `nifti`, or `dicom` for series with SEG or RTSTRUCT labels; the patients are the same.
    """

    make: Literal["phantom"]
    number: int = Field(4, ge=1, le=100)
    cases: int = Field(20, ge=3, le=10_000)
    difference: float = Field(1.0, ge=0, le=2)
    contrast: float = Field(0.0, ge=0, le=2)
    rarity: float = Field(0.0, ge=0, le=1)
    wrong_labels: float = Field(0.0, ge=0, le=1)
    seed: int = Field(1, ge=0, lt=2**31)
    format: Format = "nifti"


def compared(document: Document, study: Study) -> tuple[Choice, ...]:
    """The strategies to compare: those of `compare:`, then the study's own unless it is among them.

    None where nothing is trained.
    """
    section = {k: v for k, v in document.data.items() if k == "compare"}
    if not study.trains:
        if section:
            raise document.error(("compare",), "rounds.number is 0, so nothing is trained or compared; leave this out")
        return ()
    choices = [*document.validate(Compared, section).compare, study.strategy]
    return tuple(c for i, c in enumerate(choices) if c not in choices[:i] and c.name != LEAVE_ONE_OUT)


def leaves_one_out(document: Document, study: Study, sites: Sequence[SiteConfig]) -> bool:
    """Whether `compare:` names `leave_one_out`.

    Raises:
        StudyError: It does, and there are too few sites, or sites keep layers that an unseen site would lack.
    """
    asked = document.data.get("compare")
    if not isinstance(asked, list) or LEAVE_ONE_OUT not in asked:
        return False
    place = ("compare", asked.index(LEAVE_ONE_OUT))
    if sum(site.use == "train" for site in sites) < 3:
        raise document.error(place, "needs three sites that train: with one of two left out nothing is federated")
    if keeps_layers(study):
        lacks = "sites keep layers, which a site that was left out would not have"
        raise document.error(place, f"with {_keeper(study)} {lacks}")
    return True


def pooled_fits(document: Document, study: Study, sites: Sequence[SiteConfig]) -> None:
    """Check that pooled training with the updates of all sites is a study: it has the rounds of all of them.

    Raises:
        StudyError: It would have more rounds than a study may have.
    """
    k, number = sum(site.use == "train" for site in sites), study.rounds.number
    if number * k > MOST_ROUNDS:
        raise document.error(
            ("rounds", "number"),
            f"pooled training with the updates of all {k} sites would have {k} × {number} rounds, and {MOST_ROUNDS} "
            f"are the most; take {MOST_ROUNDS // k} or fewer, with more training.steps (or epochs) in each",
        )


def simulated_sites(
    document: Document, study: Study, data: Path | None, work: Path, phantom: Format | None = None,
    tried: Sequence[Study] | None = None,
) -> list[SiteConfig]:  # fmt: skip
    """The sites that `sites:` or `partition:` of a study file describe.

    Args:
        document: The study file.
        study: The study in it.
        data: Where relative `data:` paths are looked for first; then in $FEDSCAN_DATA, then beside the study file.
        work: Folder for what is made on the way (phantoms, tables of a split).
        phantom: Format of phantoms, whatever the study file says.
        tried: The studies of a sweep, run over the sites; none: the study with each of the compared strategies.

    Raises:
        StudyError: Naming file, line, key and remedy.
    """
    given = [key for key in ("sites", "partition") if key in document.data]
    if len(given) != 1:
        what = "has both sites: and partition:; keep one" if given else (
            "does not say where the scans are: add sites: (a name and a folder for each), or partition: (one data "
            "set to split)")  # fmt: skip
        raise document.error(tuple(given[:1]), f"the study {what}")
    section = document.data[given[0]]
    made = given == ["sites"] and isinstance(section, dict) and isinstance(section.get("make"), str)
    if phantom and not made:
        raise document.error((given[0],), "--phantom is for studies with sites: {make: phantom}; leave it out")
    find = _Finder(document, data)
    if given == ["partition"]:
        sites = _partitioned(document, study, section, find, work)
    elif isinstance(section, str):
        sites = _of_folder(document, find(section, ("sites",)))
    elif made:
        sites = _phantoms(document, study, section | ({"format": phantom} if phantom else {}), work)
    else:
        sites = _listed(document, section, find)
    for site in sites:
        if site.name in RESERVED:
            raise document.error((given[0], site.name), f"a site may not be called '{site.name}'")
    if study.trains and not any(site.use == "train" for site in sites):
        raise document.error((given[0],), "no site is left to train on")
    strategies = [study.model_copy(update={"strategy": c}) for c in compared(document, study)]
    keeping = [s for s in (strategies if tried is None else tried) if keeps_layers(s)]
    what = ", ".join(dict.fromkeys(map(_keeper, keeping)))
    for site in sites:
        if site.use == "test" and keeping:
            raise document.error(
                (given[0],),
                f"site {site.name} is for the test only, but {what} keeps layers of the net at each site that trains, "
                "and it would have none; leave the site out, or the strategy",
            )
    return sites


def _keeper(study: Study) -> str:
    """What of the study keeps layers at the sites."""
    return "rounds.buffers: local" if study.rounds.buffers == "local" else study.strategy.name


class _Finder:
    """Finds the paths that a study file names."""

    def __init__(self, document: Document, data: Path | None) -> None:
        environment = os.environ.get("FEDSCAN_DATA")
        self._document = document
        self._places = (
            ("--data", data),
            ("$FEDSCAN_DATA", Path(environment) if environment else None),
            ("the study file's folder", document.path.parent),
        )

    def __call__(self, path: str | Path, key: Location) -> Path:
        """The first place that has `path`, which stands at `key` of the study file."""
        for _, folder in self._places:
            # An absolute path wins over the folder it is joined to.
            if folder is not None and (folder / path).exists():
                return (folder / path).resolve()
        tried = "; ".join(
            f"{name}: {'not given' if folder is None else (folder / path)}" for name, folder in self._places
        )
        raise self._document.error(key, f"'{path}' was not found. Tried {tried}")


def _listed(document: Document, section: Any, find: _Finder) -> list[SiteConfig]:
    if not isinstance(section, dict) or not section:
        raise document.error(('sites',), "give a name and settings for each site "
                         "(name: {data: folder}), or a folder that has one sub-folder per site")  # fmt: skip
    sites = []
    for name, settings in section.items():
        place = ("sites", name)
        if not isinstance(settings, dict):
            raise document.error(place, "give the site's settings, e.g. data: folder")
        if "name" in settings:
            raise document.error((*place, "name"), "a site's name is its key here; leave this out")
        site = document.validate(SiteConfig, {"name": name, **settings}, root=place)
        sites.append(site.model_copy(update={"data": find(site.data, (*place, "data"))}))
    return sites


def _of_folder(document: Document, folder: Path) -> list[SiteConfig]:
    """One site per sub-folder; a `site.yaml` in it says what is special about the site."""
    if not folder.is_dir():
        raise document.error(("sites",), f"{folder} is not a folder with one sub-folder per site")
    homes = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not homes:
        raise document.error(("sites",), f"{folder} has no sub-folders; each would be a site")
    sites = [_of_home(home) for home in homes]
    names = [site.name for site in sites]
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"{folder}: two sub-folders give the site name '{name}'")
    return sites


def _of_home(home: Path) -> SiteConfig:
    usual: dict[str, Any] = {"name": site_name(home.name), "data": "."}
    if not (home / "site.yaml").exists():
        return SiteConfig(name=usual["name"], data=home)
    own = Document.read(home / "site.yaml")
    site = own.validate(SiteConfig, usual | own.data)
    return site.model_copy(update={"data": (home / site.data).resolve()})


def _phantoms(document: Document, study: Study, section: Mapping[str, Any], work: Path) -> list[SiteConfig]:
    wanted = document.validate(Phantoms, section, root=("sites",))
    strange = [label for label in study.data.labels if label not in ORGANS]
    if strange or len(study.data.channels) != 1:
        raise document.error(('data',), f"phantoms have one channel and the labels "
                         f"{', '.join(ORGANS)}; change data: accordingly")  # fmt: skip
    dials = Dials(wanted.contrast, wanted.rarity, wanted.wrong_labels)
    settings = (f"{study.data.dimensions}d", f"{wanted.number}x{wanted.cases}",
                f"difference-{wanted.difference:g}", f"seed-{wanted.seed}",
                *(f"{name}-{value:g}" for name, value in asdict(dials).items() if value),
                *(["dicom"] if wanted.format == "dicom" else []))  # fmt: skip
    folders = make_phantom(
        work / "phantoms" / "-".join(settings),
        sites=wanted.number,
        cases=wanted.cases,
        dimensions=study.data.dimensions,
        difference=wanted.difference,
        seed=wanted.seed,
        format=wanted.format,
        dials=dials,
    )
    if wanted.format == "dicom":
        return [_of_dicom_phantom(folder, study) for folder in folders]
    labels = {label: ORGANS.index(label) + 1 for label in study.data.labels}
    return [SiteConfig(name=f.name, data=f.resolve(), layout="nnunet", labels=labels) for f in folders]


def _of_dicom_phantom(folder: Path, study: Study) -> SiteConfig:
    """The hospital as its `site.yaml` describes it, less the organs that the study does not ask for."""
    site = _of_home(folder)
    # Segments and outlines of both kinds of hospitals begin with the organ's name in the singular.
    others = [f"{organ.removesuffix('s')}*" for organ in site.labels if organ not in study.data.labels]
    wanted = {organ: rule for organ, rule in site.labels.items() if organ in study.data.labels}
    return site.model_copy(update={"labels": wanted, "ignored": (*site.ignored, *others)})


def _partitioned(document: Document, study: Study, section: Any, find: _Finder, work: Path) -> list[SiteConfig]:
    partition = document.validate(Partition, section, root=("partition",))
    data = find(partition.data, ("partition", "data"))
    try:
        if partition.by.column is not None:
            sites = sites_by_column(partition, data)
        else:
            sites = sites_by_split(partition, data, study, work / "partition")
    except StudyError as error:
        raise document.error(("partition", "by"), str(error)) from None
    names = [site.name for site in sites]
    for index, name in enumerate(partition.test_only):
        if name not in names:
            hint = f"{did_you_mean(name, names)} Sites: {', '.join(names)}"
            raise document.error(("partition", "test_only", index), f"there is no site '{name}'.{hint}")
    return sites
