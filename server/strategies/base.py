"""What every strategy is: what it asks of the sites, and what it makes of their replies."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from common.study import Study
from common.wire import Flat, Schema, Terms
from server.spool import Reply


@dataclass(frozen=True)
class Fold:
    """The replies of one round, and all that a strategy may use to make the next global weights of them.

    Attributes:
        study: What is run.
        schema: Of `base`, of each reply and of the result.
        replies: In roster order, on disk; read slice by slice they need the memory of no model.
        weights: Of the sites, as `rounds.weights` wants them; their sum is any positive number.
        base: The global weights that the sites started from; never changed.
        round: From 1.
        memory: What the strategy kept after the round before, empty in round 1. The strategy puts in what it wants to
            have in the next round: arrays by two names, of which the first has no `/`. It is written with the new
            weights or not at all, so a round that is interrupted and folded again starts from the same memory.
    """

    study: Study
    schema: Schema
    replies: Sequence[Reply]
    weights: Sequence[float]
    base: Flat
    round: int
    memory: dict[str, Flat]


class Strategy(ABC):
    """The server's half of a strategy. Its keyword-only parameters are its options in the study file.

    All of it must be a pure function of its arguments and options, so that a resumed run, and every engine, ends with
    the same weights.
    """

    def terms(self, round: int) -> Terms:
        """The client's half: what the sites add to their local training in `round`. Nothing, unless overridden."""
        return Terms()

    def participants(self, round: int, roster: Sequence[str]) -> Sequence[str]:
        """Those of `roster`, the sites that may train, that do in `round`. All, unless overridden."""
        return roster

    @abstractmethod
    def fold(self, fold: Fold) -> Flat:
        """The next global weights. Needs the memory of a few models, however many sites."""
