"""Everything that the page says, from the site's own folder. Nothing is asked of anybody, nothing leaves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from client.data.prepare import prepare
from client.data.volume import CachedCase, Finding, SiteData
from client.identity import Identity
from client.models import HomeModel, home_models
from client.report.books import Books, read_books
from client.report.cases import CaseTable, Picture, chosen, judged, pictures, table_of
from client.site import SiteConfig, site_of_home
from client.work.results import read_results
from common.bundle import Bundle, read_bundle
from common.errors import DataError, IdentityError, ModelError, StudyError
from common.measured import measured

Progress = Callable[[str, int], Callable[[], object]]


@dataclass(frozen=True)
class ModelLine:
    """A model that came home, and how it did here.

    Attributes:
        model: The model.
        here: Dice on this site's test cases, as the trainer judged them for the run; none without any.
    """

    model: HomeModel
    here: CaseTable | None


@dataclass(frozen=True)
class Facts:
    """What the page says.

    Attributes:
        site: The site's name.
        models: Those that came home, the newest first.
        newest: The newest, opened; none while there is none.
        local: A model of the site's own beside it.
        local_here: Its Dice on the same cases.
        data: The site's cases for the newest model's study; none when they cannot be opened.
        pictures: Some test cases with both masks.
        books: Approvals, ledger, audit log.
        wrong: What could not be shown, and why.
        written: When.
    """

    site: str
    models: tuple[ModelLine, ...]
    newest: Bundle | None
    local: Bundle | None
    local_here: CaseTable | None
    data: SiteData | None
    pictures: tuple[Picture, ...]
    books: Books
    wrong: tuple[str, ...]
    written: datetime

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the quality gate says of the site's cases."""
        return self.data.findings if self.data else ()


def gather(home: Path, local: Bundle | None, most: int, device: torch.device, progress: Progress) -> Facts:
    """Read the site's folder and let the newest model look at some of the site's test cases.

    Args:
        home: The site's folder.
        local: A model of the site's own, of a study with the same labels, to be judged on the same cases.
        most: How many cases get pictures.
        device: Where nets compute.
        progress: Called with a title and the number of steps; what it returns is called after each.

    Raises:
        StudyError: site.yaml is wrong, or the two models are of different labels.
        ModelError: The models are for another user.
    """
    config, wrong = site_of_home(home), []
    found, damaged = home_models(home)
    wrong += damaged
    lines = tuple(ModelLine(m, _here(home, m)) for m in found)
    newest: Bundle | None = None
    data: SiteData | None = None
    shown: Sequence[Picture] = ()
    local_here: CaseTable | None = None
    if found:
        try:
            newest = read_bundle(found[0].folder)
            lines = (ModelLine(found[0], _here(home, found[0], measured(newest.study))), *lines[1:])
            data = _data(home, config, newest)
            shown = _pictures(newest, lines[0].here, data.test, most, device, progress)
            if local is not None:
                local_here = _local(local, newest, data.test, device, progress)
        except (DataError, ModelError) as error:
            wrong.append(str(error))
    books = read_books(home / "trainer", config.approval)
    return Facts(
        _name(home, config), lines, newest, local, local_here, data, tuple(shown), books, (*wrong, *books.wrong),
        datetime.now().astimezone(),
    )  # fmt: skip


def _here(home: Path, model: HomeModel, metrics: Sequence[Mapping[str, Any]] = ()) -> CaseTable | None:
    """What the trainer kept of the final test; Dice, and `metrics` as `common.measured` says them."""
    card = model.card
    path = home / "trainer" / "runs" / "results" / card.run / f"round-{card.figures.round:05d}-test.json"
    labels = [label.name for label in card.labels[1:]]
    return table_of(labels, read_results(path), metrics)


def _data(home: Path, config: SiteConfig, model: Bundle) -> SiteData:
    named = config.model_copy(update={"name": _name(home, config)})
    return prepare(model.study, named, cache=home / "cache", home=home / "trainer" / "runs")


def _pictures(
    model: Bundle, here: CaseTable | None, cases: Sequence[CachedCase], most: int, device: torch.device,
    progress: Progress,
) -> Sequence[Picture]:  # fmt: skip
    some = chosen(here, cases, most)
    return pictures(model, some, device, progress("pictures", len(some))) if some else ()


def _local(
    local: Bundle, newest: Bundle, cases: Sequence[CachedCase], device: torch.device, progress: Progress
) -> CaseTable | None:
    same = (local.study.data, local.study.plan) == (newest.study.data, newest.study.plan)
    if not same:
        raise StudyError(
            f"{local.path}: its study has other data or another plan than {newest.study.name}: the two cannot be "
            "compared case by case"
        )
    rows = judged(local, cases, device, progress("the local model", len(cases)))
    return table_of(local.study.data.labels, rows)


def _name(home: Path, config: SiteConfig) -> str:
    try:
        return Identity(home).federation().site
    except IdentityError:
        return config.name
