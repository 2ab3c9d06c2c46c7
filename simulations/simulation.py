"""What a simulation is: a study, its sites, the strategies to compare, and where it lies on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.site import SiteConfig
from common.section import Choice
from common.study import Study
from simulations.arms import Arm, Method, arms, judging, methods
from simulations.sites import Field

Engine = Literal["inline", "ray"]


@dataclass(frozen=True)
class Simulation:
    """What is to be simulated.

    Attributes:
        study: The study; its seed is the first of `seeds` consecutive ones.
        sites: The simulated sites.
        compare: The strategies that are compared; none where the study trains nothing.
        out: Folder of the simulation.
        cache: Folder of prepared cases.
        leave_one_out: Whether the study's own strategy is also trained without each of the sites.
        start: The file of the study's `start`; every arm begins with it.
    """

    study: Study
    sites: tuple[SiteConfig, ...]
    compare: tuple[Choice, ...]
    out: Path
    cache: Path
    seeds: int = 1
    engine: Engine = "inline"
    leave_one_out: bool = False
    start: Path | None = None

    def arms(self, study: Study, training: Sequence[str]) -> list[Arm]:
        """All runs of one seed over the sites that train."""
        if not study.trains:
            return judging(study, [c.name for c in self.sites])
        return arms(study, self.compare, training, self.leave_one_out)

    def methods(self) -> list[Method]:
        """All rows of the comparison."""
        return methods(self.compare, self.study.strategy if self.leave_one_out else None)

    def seeded(self) -> list[tuple[Study, Path]]:
        """The study and the folder of each seed."""
        first = self.study.seed
        studies = [self.study.model_copy(update={"seed": first + i}) for i in range(self.seeds)]
        return [(s, self.out / f"seed-{s.seed}") for s in studies]

    def field(self, folder: Path) -> Field:
        """The sites of the seed whose folder is `folder`."""
        return Field(self.sites, self.cache, folder / "sites")
