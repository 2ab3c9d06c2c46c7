"""A study's training, rounds and start."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.section import Section


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
UNTRAINED = Training(steps=1)
MOST_ROUNDS = 100_000


class Rounds(Section):
    """How the rounds run at the coordinator.

    Attributes:
        number: Rounds of the study; 0 trains nothing: sites judge the model of `start`.
        weights: A site's weight in the mean: its training `cases`, the `patches` it trained on, or `equal`.
        quorum: Smallest share of the sites whose replies make a round count.
        deadline: Seconds after which a round goes on without the sites that have not answered; none waits.
        buffers: Running statistics of batch normalisation: `aggregate` pools mean and variance, `local` never sends.
    """

    number: int = Field(20, ge=0, le=MOST_ROUNDS)
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
