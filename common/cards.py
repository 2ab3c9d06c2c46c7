"""What the catalogue tells of an entry of a registry besides its options and numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

Target = TypeVar("Target", bound=Callable[..., Any])


@dataclass(frozen=True)
class Card:
    """An entry's own words.

    Attributes:
        title: The name by which the field knows it, e.g. "3D U-Net"; a gloss may follow in brackets.
        source: Author, year, where, and DOI or arXiv number.
        suited: What it is good for, in one sentence.
    """

    title: str
    source: str
    suited: str


@dataclass(frozen=True)
class NetCard(Card):
    """A net's own words.

    Attributes:
        dimensions: Which of 2 and 3 it takes.
        federation: What to watch for when it is averaged: buffers, auxiliary heads, the size of an update.
        receptive_field: Voxels per axis of the input that one output voxel can depend on through the convolutions with
            default options, in the net's lowest dimension; None where it is the whole input by design.
        small: Options that make it small enough for a CPU: for the catalogue, the benchmarks and the tests.
        channels: Image channels that it needs at least.
    """

    dimensions: tuple[int, ...] = (2, 3)
    federation: str = ""
    receptive_field: int | None = None
    small: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 1


@dataclass(frozen=True)
class StrategyCard(Card):
    """A strategy's own words.

    Attributes:
        equation: What it does, as the paper has it.
        server: What the coordinator keeps from round to round.
        site: What a site keeps for it from round to round, besides the optimiser's moments.
        sent: What crosses besides the weights, in models' worth or numbers, each way.
    """

    equation: str = ""
    server: str = "nothing"
    site: str = "nothing"
    sent: str = "nothing"


@dataclass(frozen=True)
class UpdateCard(Card):
    """The own words of a form in which updates cross.

    Attributes:
        equation: What crosses for a change d of the parameters.
        size: Bytes per parameter.
        site: What a site keeps for it from round to round.
    """

    equation: str = ""
    size: str = ""
    site: str = "nothing"


def described(card: Card) -> Callable[[Target], Target]:
    """Decorator that puts `card` on a registry's target, a class or a function."""

    def attach(target: Target) -> Target:
        target.card = card  # type: ignore[attr-defined]
        return target

    return attach


def card_of(target: Callable[..., Any]) -> Card:
    """The card of a registry's target; raises AttributeError if it has none."""
    return cast(Card, target.card)  # type: ignore[attr-defined]
