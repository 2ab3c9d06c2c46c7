"""The metrics of a simulation as the report shows them: title, unit, and which of two values is the better one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A metric.

    Attributes:
        name: Key of its values in the rows of `results["cases"]`.
        unit: Of its values; empty for shares.
        ideal: Its value where prediction and truth are equal; what is nearer to it is better.
    """

    name: str
    title: str
    unit: str
    ideal: float

    @property
    def digits(self) -> int:
        """Decimals with which values are shown, and compared."""
        return 2 if self.unit else 3

    @property
    def heading(self) -> str:
        """The title and the unit: `HD95, mm`."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def distance(self, value: float) -> float:
        """How far from the ideal."""
        return abs(value - self.ideal)

    def worst(self, values: Iterable[float]) -> float:
        """The value that is farthest from the ideal."""
        return max(values, key=self.distance)

    def gain(self, first: float, second: float) -> float:
        """How much better `first` is than `second`: above 0 if it is."""
        return self.distance(second) - self.distance(first)

    def text(self, value: float | None) -> str:
        """`0.912` or `3.21`; – for a missing value."""
        return "–" if value is None else f"{value:.{self.digits}f}".replace("-", "−")


DICE = Measure("dice", "Dice", "", 1.0)


def measures(results: Mapping[str, Any]) -> list[Measure]:
    """What was measured in the simulation, Dice first."""
    found = [Measure(m["name"], m["title"], m["unit"], m["ideal"]) for m in results.get("metrics", ())]
    return [DICE, *(m for m in found if m.name != DICE.name)]
