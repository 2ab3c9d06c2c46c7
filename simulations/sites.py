"""The sites of a simulation, opened in this process; the inline engine and Ray's workers use them alike."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from client.data.prepare import prepare
from client.data.volume import CachedCase, SiteData
from client.device import pick_device
from client.open_site import OpenSite, Workplace
from client.site import SiteConfig
from common.study import Study
from simulations.arms import POOLED

OnCase = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Field:
    """Where the sites of one seed are.

    Attributes:
        configs: The sites, in roster order.
        cache: Prepared cases, shared by all sites and seeds (keyed by content).
        homes: Folder with one home per site.
    """

    configs: tuple[SiteConfig, ...]
    cache: Path
    homes: Path

    @property
    def training(self) -> tuple[str, ...]:
        """Names of the sites that train."""
        return tuple(c.name for c in self.configs if c.use == "train")

    def write(self, path: Path) -> None:
        """Describe the field in a file, for other processes."""
        sites = [c.model_dump(mode="json", by_alias=True, exclude_defaults=True) for c in self.configs]
        path.write_text(json.dumps({"sites": sites, "cache": str(self.cache), "homes": str(self.homes)}), "utf-8")

    @classmethod
    def read(cls, path: Path) -> "Field":
        """The field that `write` described."""
        data = json.loads(path.read_text("utf-8"))
        configs = tuple(SiteConfig.model_validate(c) for c in data["sites"])
        return cls(configs, Path(data["cache"]), Path(data["homes"]))

    def open(self, on_step: Callable[[], None] = lambda: None, on_case: OnCase | None = None) -> list[OpenSite]:
        """All sites, and last the pooled one; they share one warm net per device.

        Args:
            on_step: Called after each training step.
            on_case: Called with site, cases done and cases in all while a site is prepared.
        """
        workplaces: dict[str, Workplace] = {}

        def workplace(name: str) -> Workplace:
            device = pick_device(name)
            return workplaces.setdefault(str(device), Workplace(device))

        sites = [
            OpenSite(
                c,
                self.homes / c.name,
                _loader(c, self.cache, self.homes / c.name, on_case or _ignore),
                workplace(c.device),
                on_step,
            )
            for c in self.configs
        ]
        # Where all are for the test, nothing is trained and nothing pooled.
        training = [s for s in sites if s.config.use == "train"] or sites
        pooled = SiteConfig(name=POOLED, data=Path(), device=training[0].config.device)
        everything = OpenSite(
            pooled, self.homes / POOLED, lambda study: _union([s.data(study) for s in training]),
            workplace(pooled.device), on_step,
            # T of the pooled baseline is what a site has on average, however many cases are in the pool.
            steps=lambda study: round(fmean(s.steps(study) for s in training)),
        )  # fmt: skip
        return [*sites, everything]


def _loader(config: SiteConfig, cache: Path, home: Path, on_case: OnCase) -> Callable[[Study], SiteData]:
    return lambda study: prepare(study, config, cache=cache, home=home, progress=partial(on_case, config.name))


def _ignore(site: str, done: int, total: int) -> None:
    """Nobody watches."""


def _union(parts: Sequence[SiteData]) -> SiteData:
    def together(name: str) -> tuple[CachedCase, ...]:
        return tuple(case for part in parts for case in getattr(part, name))

    return SiteData(together("train"), together("validation"), together("test"))
