"""What a study found, as numbers that every hospital which took part may see: means over sites, none of one site."""

from typing import Annotated

from pydantic import Field

from common.records import Record

MOST_POINTS = 500  # of a curve: a picture shows no more

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class Scores(Record):
    """How one model did on the cases of one part, at all sites together.

    Attributes:
        sites: How many sites could judge it.
        cases: Their cases, together.
        dice: Mean over the sites of their mean Dice.
        labels: The same by label, in the study's order; none where no case has the label, or those of one site alone.
    """

    sites: int = Field(ge=1, le=1000)
    cases: Count
    dice: Share
    labels: tuple[Share | None, ...] = Field(min_length=1, max_length=254)


class Point(Record):
    """Mean validation Dice over the sites after a round."""

    round: int = Field(ge=1, le=100_000)
    dice: Share


class Figures(Record):
    """The study's figures. Whoever is one of two sites can compute the other's mean from them, and from its own.

    Attributes:
        round: The round whose weights were chosen; 0 for those with which the study began.
        rounds: How many rounds counted; 0 where nothing was trained, and a given model was judged.
        sites: How many sites trained.
        cases: Their training cases, together.
        validation: Of the chosen round.
        test: Of the chosen round, on cases that had no say in anything.
        curve: Validation by round; of very many rounds some.
    """

    round: int = Field(ge=0, le=100_000)
    rounds: int = Field(ge=0, le=100_000)
    sites: int = Field(ge=0, le=1000)
    cases: Count
    validation: Scores | None = None
    test: Scores | None = None
    curve: tuple[Point, ...] = Field((), max_length=MOST_POINTS)

    def fits(self, labels: int) -> bool:
        """Whether the scores are of so many labels."""
        return all(len(s.labels) == labels for s in (self.validation, self.test) if s is not None)
