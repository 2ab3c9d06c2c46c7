"""What a site lets out, whatever a study asks: bounds of its own, held before training and once more at the gate."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from common.errors import PolicyError
from common.metrics import QUARTILES, SPREADS, TOLD, WORST, Spread, count_key, score_key, spread_stats
from common.own_choice import PREFIX
from common.study import Study
from common.study_training import Training

Kind = Literal["join", "train", "evaluate", "result"]
Numbers = Mapping[str, float]

_COUNTS = ("train", "validation", "test", "patients", "num-examples", "judged")
_WHOLE = (*_COUNTS, "steps", "chosen")


class Policy(BaseModel):
    """The section `policy` of site.yaml.

    Few cases, few steps and small batches are what makes an update tell of single patients: of one step on one case it
    is that case's gradient, from which the image can be found again (Zhu et al. 2019, arXiv 1906.08935).

    Attributes:
        steps: Fewest optimiser steps of a round.
        batch: Fewest patches of a step.
        rate: Highest learning rate.
        cases: Fewest training cases behind an update.
        bytes: Largest reply, in bytes of arrays.
        small: Counts below this are withheld, and so is every score over so few cases.
        digits: Decimals of scores, losses and seconds; none leaves them as they are.
        spread: The most that is told of how scores spread over the cases: `none`, `quartiles`, or the value of the
            `worst` case as well.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    steps: int = Field(10, ge=1)
    batch: int = Field(2, ge=1)
    rate: float = Field(1.0, gt=0)
    cases: int = Field(10, ge=1)
    bytes: int = Field(4_000_000_000, ge=1)
    small: int = Field(5, ge=1)
    digits: int | None = Field(4, ge=0, le=17)
    spread: Spread = "quartiles"

    def check_study(self, study: Study, nbytes: int) -> None:
        """Refuse a study that asks for more than this lets out, before anything is prepared.

        Args:
            study: What is asked.
            nbytes: Of an update of its net.

        Raises:
            PolicyError: Naming the bound.
        """
        asked = study.training
        if study.trains:
            self._check_training_section(asked)
        if study.trains and nbytes > self.bytes:
            raise _beyond("bytes", f"asks for replies of {nbytes} bytes; at most {self.bytes} may leave here")
        spread = study.evaluation.spread
        if SPREADS.index(spread) > SPREADS.index(self.spread):
            raise _beyond("spread", f"asks for evaluation.spread: {spread}; at most {self.spread} is told here")

    def _check_training_section(self, asked: Training) -> None:
        if asked.steps is not None and asked.steps < self.steps:
            raise _beyond("steps", f"asks for {asked.steps} steps in a round; at least {self.steps} are wanted here")
        if asked.batch < self.batch:
            raise _beyond("batch", f"asks for batches of {asked.batch}; at least {self.batch} are wanted here")
        if asked.rate > self.rate:
            raise _beyond("rate", f"asks for a learning rate of {asked.rate:g}; at most {self.rate:g} is allowed here")

    def check_training(self, cases: int, steps: int) -> None:
        """Refuse to train on too little; raises PolicyError."""
        if cases < self.cases:
            raise _beyond("cases", f"would learn from {cases} cases; at least {self.cases} are wanted here")
        if steps < self.steps:
            raise _beyond("steps", f"would make {steps} steps in a round; at least {self.steps} are wanted here")

    def check_evaluation(self, cases: int) -> None:
        """Refuse to judge a model on too few cases; raises PolicyError."""
        if cases < self.small:
            raise _beyond("small", f"would tell the score of {cases} cases; at least {self.small} are wanted here")

    def counts(self, metrics: Numbers) -> dict[str, float]:
        """What is said when a study begins. Too few is said as none, so that nobody asks for what would be refused."""
        told = {name: n if name not in _COUNTS or n >= self.small else 0 for name, n in metrics.items()}
        if metrics["train"] < self.cases or metrics["steps"] < self.steps:
            told |= {"train": 0, "steps": 0}
        return told

    def fitting(self, kind: Kind, metrics: Numbers, nbytes: int) -> dict[str, float]:
        """The numbers of a reply as they may leave: rounded.

        Raises:
            PolicyError: A count is too small to leave, the update rests on too little, or is too large.
        """
        if kind == "train":
            self.check_training(int(metrics["num-examples"]), int(metrics["steps"]))
        if nbytes > self.bytes:
            raise _beyond("bytes", f"has a reply of {nbytes} bytes; at most {self.bytes} may leave here")
        own = {name.removeprefix(PREFIX): n for name, n in metrics.items() if name.startswith(PREFIX)}
        for numbers in ({name: n for name, n in metrics.items() if not name.startswith(PREFIX)}, own):
            self._check_numbers(numbers)
        return {name: self._rounded(name.removeprefix(PREFIX), value) for name, value in metrics.items()}

    def _check_numbers(self, metrics: Numbers) -> None:
        """Counts and scores of one model."""
        for name, value in metrics.items():
            if (name in _COUNTS or name.startswith("cases.")) and 0 < value < self.small:
                raise _beyond("small", f"has a count ({name}) below {self.small}")
            metric, _, rest = name.partition(".")
            label, _, what = rest.partition(".")
            if not label or metric == "cases" or not value:
                continue
            if not metrics[count_key(label)] or not metrics.get(score_key(metric, label, TOLD), 1):
                raise _beyond("small", f"has a score ({name}) over fewer than {self.small} cases")
            if what in (*QUARTILES, WORST) and what not in spread_stats(self.spread):
                raise _beyond("spread", f"tells of the spread ({name}); at most {self.spread} is told here")

    def _rounded(self, name: str, value: float) -> float:
        if self.digits is None or name in _WHOLE or name.startswith("cases."):
            return value
        return round(value, self.digits)


def _beyond(bound: str, what: str) -> PolicyError:
    return PolicyError(bound, f"the study {what} (site.yaml: policy: {bound})")
