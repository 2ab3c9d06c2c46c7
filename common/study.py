"""The study: one YAML file that says what is learnt and how. Data, never code.

Everything here is the same at the coordinator, at every site and in a simulation. What differs by site (where the
scans are, how its labels are numbered) stands in the site's own file and outside the digest.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from common.codes import SnomedCode, value_of
from common.documents import Document, wrong_at
from common.metrics import DICE, Metric, Spread
from common.names import LOSSES, METRICS, NETS, POSTPROCESS, STRATEGIES, UPDATES
from common.registry import Registry, did_you_mean

# Keys of a study file that only a simulation reads; they stand outside the digest.
SIMULATION_KEYS = ("sites", "partition", "compare")

# The three parts into which a site's patients are divided.
Part = Literal["train", "validation", "test"]
Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="lower-case letters, digits, - and _, first a letter or digit, at most 63",
    ),
]
_ROUNDING = 1e-9  # of shares: 0.9 + 0.1 need not be 1 as floats
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of the study's sections: no unknown keys, nothing changes after validation, NaN refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any) -> Any:
        # pydantic would take true for 1; as a word it is refused with the key's own message.
        if not isinstance(value, dict):
            return value
        number = {k for k, field in cls.model_fields.items() if field.annotation not in (bool, str)}
        return {k: str(v).lower() if isinstance(v, bool) and k in number else v for k, v in value.items()}


class Choice(BaseModel):
    """A name from a registry and its options, written flat: `{name: dynunet, size: small}` or just `dynunet`."""

    model_config = ConfigDict(frozen=True)
    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and set(value) == {"name", "options"} and isinstance(value["options"], dict):
            return value
        if isinstance(value, dict):
            options = {k: v for k, v in value.items() if k != "name"}
            return {**({"name": value["name"]} if "name" in value else {}), "options": options}
        return value

    @model_serializer
    def _flatten(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


# Validation context of a site: it takes the strategy as it stands, because the server's code is not the site's to load.
AT_SITE = {"unchecked": STRATEGIES.kind}


def _from(registry: Registry) -> AfterValidator:
    """Check a Choice against `registry` and fill in the defaults of its options."""

    def check(choice: Choice, info: ValidationInfo) -> Choice:
        if info.context and info.context.get("unchecked") == registry.kind:
            return choice
        return choice.model_copy(update={"options": registry.check(choice.name, choice.options)})

    return AfterValidator(check)


def _with_dice(chosen: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """The metrics, each once, Dice among them."""
    names = [choice.name for choice in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"each metric may stand once: {', '.join(names)}")
    return chosen if DICE in names else (*chosen, Choice(name=DICE))


class ZScore(Section):
    """Subtract the mean and divide by the standard deviation of the volume (of its non-zero voxels if `nonzero`)."""

    method: Literal["zscore"] = "zscore"
    nonzero: bool = False


class Percentile(Section):
    """Map the `low`th to the `high`th percentile of the volume to −1 … 1, values outside clipped."""

    method: Literal["percentile"] = "percentile"
    low: float = Field(0.5, ge=0, lt=100)
    high: float = Field(99.5, gt=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class Window(Section):
    """Map `low` … `high` (CT: Hounsfield units) to −1 … 1, values outside clipped."""

    method: Literal["window"] = "window"
    low: float = -1000.0
    high: float = 400.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


Intensity = Annotated[ZScore | Percentile | Window, Field(discriminator="method")]


class Plan(Section):
    """How every case becomes an array, fixed before round 1.

    Attributes:
        spacing: Voxel size in mm (RAS+ axes) to which cases are resampled; none keeps each case's own grid.
        size: For 2D pictures without a physical size: pixels to which they are resized.
        patch: Size in voxels of what the net sees in training.
        intensity: One rule for all channels, or one per channel.
    """

    spacing: tuple[Annotated[float, Field(gt=0, le=100)], ...] | None = None
    size: tuple[Annotated[int, Field(ge=8, le=8192)], ...] | None = None
    patch: tuple[Annotated[int, Field(ge=8, le=1024)], ...]
    intensity: Intensity | tuple[Intensity, ...] = ZScore()


class Data(Section):
    """What a case consists of, and what happens to a case that cannot be used.

    Attributes:
        channels: Names of the image channels, in the order in which the net sees them.
        labels: Names of the structures; the first has value 1 in the label map, background is 0.
        codes: Label -> SNOMED CT code, by which it is found in files that carry codes.
        dimensions: 3 for volumes, 2 for pictures.
        modality: What the scans are (DICOM's word); sites then hold the intensities against it: CT in Hounsfield units,
            PT without negative values, and so on. None: nothing is asked.
        bad_cases: `exclude` leaves a bad case out and says so; `refuse` refuses the whole site.
        ignore: Value in the label files of voxels that nobody labelled: no loss and no metric counts them; none: all
            voxels are labelled.
    """

    channels: tuple[Name, ...] = Field(("image",), min_length=1, max_length=32)
    labels: tuple[Name, ...] = Field(min_length=1, max_length=254)
    codes: dict[Name, SnomedCode] = {}
    dimensions: Literal[2, 3] = 3
    modality: Literal["CT", "MR", "PT", "MG", "DX", "CR", "XA"] | None = None
    bad_cases: Literal["exclude", "refuse"] = "exclude"
    ignore: int | None = Field(None, ge=-(2**15), lt=2**16, json_schema_extra={"not": {"const": 0}})

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, names in (("channels", self.channels), ("labels", self.labels)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what}: each name may stand once: {', '.join(names)}")
        if "background" in self.labels:
            raise ValueError("labels: background is always value 0; leave it out")
        for name in self.codes:
            if name not in self.labels:
                raise wrong_at(f"codes.{name}", f"is no label of the study.{did_you_mean(name, self.labels)}")
        values = [value_of(code) for code in self.codes.values()]
        if len(set(values)) < len(values):
            raise wrong_at("codes", "each code may stand for one label only")
        if self.ignore == 0:
            raise wrong_at("ignore", "0 is the background; voxels without a label need a value of their own, e.g. 255")
        return self


class Training(Section):
    """What a site does in one round.

    Attributes:
        optimizer: `adamw` or `sgd` (Nesterov momentum).
        rate: Learning rate at the schedule's top.
        schedule: Over all steps of the study, not of one round: `constant`, `cosine` to 0 or `poly` (1−t)^0.9.
        warmup: Steps of linear rise at the start of the study.
        steps: Optimiser steps per round; or `epochs` passes over the site's training cases.
        optimizer_state: `keep` carries the moments on from round to round, `reset` starts each round afresh.
        clip: Largest L2 norm of the gradient; none switches clipping off.
        precision: `auto` is mixed precision on CUDA and fp32 elsewhere; `bf16` is mixed on any device.
        foreground: Share of the patches that are centred on a labelled voxel.
        head_weights: Weights of the outputs of a deeply supervised net, finest first; none: those of its paper.
        freeze: Parameters that are not trained and not sent back, by name; `*` stands for any letters (`encoder.*`).
            They keep the values with which the run begins. Running statistics beside them are no parameters.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    rate: float = Field(1e-3, gt=0, le=10)
    weight_decay: float = Field(1e-2, ge=0, le=1)
    momentum: float = Field(0.99, ge=0, lt=1)
    schedule: Literal["constant", "cosine", "poly"] = "poly"
    warmup: int = Field(0, ge=0)
    batch: int = Field(2, ge=1, le=1024)
    steps: int | None = Field(None, ge=1, le=1_000_000)
    epochs: int | None = Field(None, ge=1, le=10_000)
    optimizer_state: Literal["keep", "reset"] = "keep"
    clip: float | None = Field(12.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    augment: Literal["default", "none"] = "default"
    foreground: float = Field(0.34, ge=0, le=1)
    head_weights: tuple[Annotated[float, Field(ge=0, le=1000)], ...] | None = Field(None, min_length=1, max_length=16)
    freeze: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field((), max_length=64)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps ({self.steps}) and epochs ({self.epochs}) both say how long a round is; keep one")
        if self.steps is None and self.epochs is None:
            raise ValueError("give steps or epochs: how long a site trains in one round")
        return self


# The training section of a study that trains nothing: it has none, and equal studies have equal digests.
_UNTRAINED = Training(steps=1)


class Rounds(Section):
    """How the rounds run at the coordinator.

    Attributes:
        number: Rounds of the study; 0 trains nothing: sites judge the model of `start`.
        weights: A site's weight in the mean: its training `cases`, the `patches` it trained on, or `equal`.
        quorum: Smallest share of the sites whose replies make a round count.
        deadline: Seconds after which a round goes on without the sites that have not answered; none waits.
        buffers: Running statistics of batch normalisation: `aggregate` pools mean and variance, `local` never sends.
    """

    number: int = Field(20, ge=0, le=100_000)
    weights: Literal["cases", "patches", "equal"] = "cases"
    quorum: float = Field(0.5, gt=0, le=1)
    deadline: float | None = Field(None, gt=0)
    buffers: Literal["aggregate", "local"] = "aggregate"


class Start(Section):
    """Weights with which a run begins, instead of random ones.

    Attributes:
        file: Where the coordinator (or a simulation) finds them, from the study file's folder on: `weights.safetensors`
            of a model that a run wrote, or that model's folder. Outside the digest: the hash says which file it is.
        sha256: Of that file; `fedscan study start FILE` says it.
        parts: `all` of the net; or its `body`, all but the layers that make the classes, which begin at random: for
            other labels.
    """

    file: str | None = Field(None, min_length=1, max_length=1000, exclude=True)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="64 hex digits, lower case")
    parts: Literal["all", "body"] = "all"


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
    metrics: Annotated[tuple[Annotated[Choice, _from(METRICS)], ...], AfterValidator(_with_dice)] = Field(
        (Choice(name=DICE), Choice(name="hd95")), max_length=16, validate_default=True
    )
    spread: Spread = "quartiles"
    own: Own | None = None

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.validation + self.test > 1 + _ROUNDING:
            raise ValueError(f"validation + test is {self.validation + self.test:g}: more than all patients")
        return self

    @property
    def leaves_training(self) -> bool:
        """Whether any patient is left to train with."""
        return self.validation + self.test < 1 - _ROUNDING


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
    net: Annotated[Choice, _from(NETS)] = Field(Choice(name="dynunet"), validate_default=True)
    loss: Annotated[Choice, _from(LOSSES)] = Field(Choice(name="dice_ce"), validate_default=True)
    training: Training
    strategy: Annotated[Choice, _from(STRATEGIES)] = Field(Choice(name="fedavg"), validate_default=True)
    update: Annotated[Choice, _from(UPDATES)] = Field(Choice(name="full"), validate_default=True)
    rounds: Rounds = Rounds()
    evaluation: Evaluation = Evaluation()
    postprocess: tuple[Annotated[Choice, _from(POSTPROCESS)], ...] = Field((), max_length=16)

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_train(cls, value: Any) -> Any:
        rounds = value.get("rounds") if isinstance(value, dict) else None
        if isinstance(rounds, dict) and rounds.get("number") == 0 and "training" not in value:
            return {**value, "training": _UNTRAINED}
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
            ("training", self.training, _UNTRAINED), ("strategy", self.strategy, Choice(name="fedavg")),
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
