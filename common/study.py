"""The study: one YAML file that says what is learnt and how. Data, never code.

Everything here is the same at the coordinator, at every site and in a simulation. What differs by site (where the
scans are, how its labels are numbered) stands in the site's own file and outside the digest.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from common.documents import Document, wrong_at
from common.metrics import DICE, Metric
from common.names import LOSSES, METRICS, NETS, POSTPROCESS, STRATEGIES, UPDATES
from common.section import Choice, Name, Section, choice_from
from common.study_evaluation import Evaluation
from common.study_plan import Data, Plan
from common.study_training import UNTRAINED, Rounds, Start, Training

# Keys of a study file that only a simulation reads; they stand outside the digest.
SIMULATION_KEYS = ("sites", "partition", "compare")


class Study(Section):
    """One study, complete: every default is filled in, so that equal studies have equal digests.

    Its `author` may not approve it at a site: a user name there, or an address that begins with it.
    """

    name: Name
    description: str = Field("", max_length=2000)
    author: str = Field("", max_length=200)
    seed: int = Field(1, ge=0, lt=2**31)
    start: Start | None = None
    data: Data
    plan: Plan
    net: Annotated[Choice, choice_from(NETS)] = Field(Choice(name="dynunet"), validate_default=True)
    loss: Annotated[Choice, choice_from(LOSSES)] = Field(Choice(name="dice_ce"), validate_default=True)
    training: Training
    strategy: Annotated[Choice, choice_from(STRATEGIES)] = Field(Choice(name="fedavg"), validate_default=True)
    update: Annotated[Choice, choice_from(UPDATES)] = Field(Choice(name="full"), validate_default=True)
    rounds: Rounds = Rounds()
    evaluation: Evaluation = Evaluation()
    postprocess: tuple[Annotated[Choice, choice_from(POSTPROCESS)], ...] = Field((), max_length=16)

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_train(cls, value: Any) -> Any:
        rounds = value.get("rounds") if isinstance(value, dict) else None
        if isinstance(rounds, dict) and rounds.get("number") == 0 and "training" not in value:
            return {**value, "training": UNTRAINED}
        return value

    @model_validator(mode="after")
    def _trains_or_judges(self) -> Self:
        if self.trains:
            if not self.evaluation.leaves_training:
                raise wrong_at("evaluation", "validation + test is 1: no patient is left for training")
            return self
        why = "rounds.number is 0, so nothing is trained: "
        if self.start is None:
            raise wrong_at("rounds.number", "0 judges a given model: name it under start (fedscan study start FILE)")
        if self.start.parts != "all":
            raise wrong_at("start.parts", f"{why}a model without its last layers cannot be judged")
        if self.evaluation.validation + self.evaluation.test == 0:
            raise wrong_at("evaluation", f"{why}give the share of patients to judge on, e.g. test: 1")
        for key, value, usual in (
            ("training", self.training, UNTRAINED), ("strategy", self.strategy, Choice(name="fedavg")),
            ("update", self.update, Choice(name="full")),
            ("rounds.buffers", self.rounds.buffers, "aggregate"), ("evaluation.own", self.evaluation.own, None),
        ):  # fmt: skip
            if value != usual:
                raise wrong_at(key, f"{why}leave this out")
        return self

    @property
    def trains(self) -> bool:
        """Whether anything is trained; else a given model is judged."""
        return self.rounds.number > 0

    @model_validator(mode="after")
    def _dimensions_agree(self) -> Self:
        n = self.data.dimensions
        for key in ("spacing", "size", "patch"):
            value = getattr(self.plan, key)
            if value is not None and len(value) != n:
                raise wrong_at(f"plan.{key}", f"has {len(value)} numbers, but data.dimensions is {n}")
        if self.plan.size is not None and (n != 2 or self.plan.spacing is not None):
            raise wrong_at("plan.size", "is for 2D pictures (data.dimensions: 2) without plan.spacing")
        rules = self.plan.intensity
        if isinstance(rules, tuple) and len(rules) != len(self.data.channels):
            raise wrong_at("plan.intensity", f"has {len(rules)} rules for {len(self.data.channels)} channels")
        return self

    @model_validator(mode="after")
    def _metrics_fit(self) -> Self:
        for i, choice in enumerate(self.evaluation.metrics):
            metric: Metric = METRICS.get(choice.name)(**choice.options)
            for option, text in metric.misfits(self.data.dimensions, self.data.labels):
                raise wrong_at(f"evaluation.metrics.{i}.{option}", text)
        return self

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        late = ""
        for i, choice in enumerate(self.postprocess):
            step = POSTPROCESS.get(choice.name)(**choice.options)
            for option, text in step.misfits(self.data.dimensions, self.data.labels):
                raise wrong_at(f"postprocess.{i}.{option}", text)
            if step.on == "label map":
                late = choice.name
            elif late:
                text = f"{choice.name} works on {step.on}, so it must stand before {late}, which works on the label map"
                raise wrong_at(f"postprocess.{i}", text)
        return self

    @property
    def classes(self) -> int:
        """Output channels of the net: the labels and the background."""
        return len(self.data.labels) + 1

    def metrics(self) -> dict[str, Metric]:
        """What is measured, by name; Dice first."""
        chosen = sorted(self.evaluation.metrics, key=lambda c: c.name != DICE)
        return {c.name: METRICS.get(c.name)(**c.options) for c in chosen}

    def canonical(self) -> bytes:
        """The study as bytes that are the same for equal studies: JSON, keys sorted, no white space, UTF-8."""
        data = self.model_dump(mode="json")
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    def digest(self) -> str:
        """SHA-256 of `canonical()`, in hex."""
        return hashlib.sha256(self.canonical()).hexdigest()


def load_study(path: Path) -> Study:
    """Read and validate a study file; raises StudyError naming file, line, key and remedy."""
    return study_of(Document.read(path))


def study_of(document: Document) -> Study:
    """The study in `document`, without the sections that only a simulation reads."""
    data = {k: v for k, v in document.data.items() if k not in SIMULATION_KEYS}
    return document.validate(Study, data, also=SIMULATION_KEYS)
