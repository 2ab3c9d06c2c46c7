"""A study's evaluation: who judges, how the net looks at an image, what is measured and told."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from common.metrics import DICE, Spread
from common.names import METRICS
from common.section import ROUNDING, Choice, Fraction, Section, choice_from


def _with_dice(chosen: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """The metrics, each once, Dice among them."""
    names = [choice.name for choice in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"each metric may stand once: {', '.join(names)}")
    return chosen if DICE in names else (*chosen, Choice(name=DICE))


class Sliding(Section):
    """The whole image through overlapping windows of the patch's size, averaged with Gaussian weights."""

    method: Literal["sliding"] = "sliding"


class FixedPoint(Section):
    """Coarse to fine (Zhou 2017): the box around what was found is looked at again until that changes no more.

    Attributes:
        coarse: The first look at the whole image has voxels so many times larger than the plan's.
        margin: Added to the box on every side, in mm (in pixels for pictures without a physical size).
        rounds: Most looks at a box.
        agreement: Dice between what two looks found, all labels as one, at which the search ends.
    """

    method: Literal["fixed_point"] = "fixed_point"
    coarse: float = Field(1.0, ge=1, le=8)
    margin: float = Field(20.0, ge=0, le=1000)
    rounds: int = Field(10, ge=1, le=100)
    agreement: float = Field(0.95, gt=0, le=1)


Scheme = Annotated[Sliding | FixedPoint, Field(discriminator="method")]


class Own(Section):
    """With which model each site ends: the best on its own validation cases. Of equal ones the global one is taken.

    Candidates are the global model with the site's own layers; with a strategy that trains a personal model, that one;
    and what is named here. Only the choice and scores are told; the chosen model stays at the site.

    Attributes:
        finetune: Steps that go on from the global model on the site's own cases; 0: no such candidate.
        rate: Learning rate of those steps at the schedule's top; none: a tenth of `training.rate`.
        local: Whether each site also trains a model alone, as many steps as all rounds together have.
    """

    finetune: int = Field(100, ge=0, le=1_000_000)
    rate: float | None = Field(None, gt=0, le=10)
    local: bool = False


class Evaluation(Section):
    """Which patients are kept apart, when the global model is validated, how it looks at an image, what is measured.

    Attributes:
        validation: Share of a site's patients on which models are chosen.
        test: Share of a site's patients that is read once, at the end. The two may make 1 where nothing is trained.
        seed: Of the division; not the study's, so that repetitions with other seeds test on the same patients.
        every: Validate after every so many rounds (and after the last).
        overlap: Share by which sliding windows overlap.
        scheme: How the net's windows go over an image.
        mirror: Mean over the image and its mirror images along every combination of axes; for structures that look
            alike mirrored, since training shows no mirror images.
        metrics: What is measured of each case and label; Dice always is, and by it the best round is chosen.
        spread: What a site tells of the spread over its cases besides the means: `none`, `quartiles`, or the `worst`
            case's value as well; sites may refuse (`policy.spread` in site.yaml).
        own: Each site ends with the model that is best there; none: with the global one.
    """

    validation: Fraction = 0.2
    test: Fraction = 0.2
    seed: int = Field(1, ge=0, lt=2**31)
    every: int = Field(1, ge=1)
    overlap: float = Field(0.5, ge=0, lt=1)
    scheme: Scheme = Sliding()
    mirror: bool = False
    metrics: Annotated[tuple[Annotated[Choice, choice_from(METRICS)], ...], AfterValidator(_with_dice)] = Field(
        (Choice(name=DICE), Choice(name="hd95")), max_length=16, validate_default=True
    )
    spread: Spread = "quartiles"
    own: Own | None = None

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.validation + self.test > 1 + ROUNDING:
            raise ValueError(f"validation + test is {self.validation + self.test:g}: more than all patients")
        return self

    @property
    def leaves_training(self) -> bool:
        """Whether any patient is left to train with."""
        return self.validation + self.test < 1 - ROUNDING
