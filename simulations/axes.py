"""What a sweep varies, as `--sweep strategy=fedavg,fedprox --sweep strategy.mu=0.001..0.1` says it, and its studies."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.documents import Document
from common.errors import StudyError
from common.names import LOSSES, NETS, STRATEGIES, UPDATES
from common.registry import Registry
from common.study import SIMULATION_KEYS, Study
from common.wording import plain, shown

CHOICES: Mapping[str, Registry] = {"net": NETS, "loss": LOSSES, "strategy": STRATEGIES, "update": UPDATES}
# With another split or other labels the validation cases would not be the same; seeds have an option of their own.
FIXED = ("name", "seed", "data", "evaluation.validation", "evaluation.test", "evaluation.seed",
         "start.file", "start.sha256", *SIMULATION_KEYS)  # fmt: skip
MOST = 1000


@dataclass(frozen=True)
class Axis:
    """One key of the study and the values that it takes."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Trial:
    """One study of a sweep.

    Attributes:
        changes: What is set in it, by key.
    """

    study: Study
    changes: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Its folder."""
        return self.study.digest()[:12]

    @property
    def title(self) -> str:
        """`strategy fedprox, strategy.mu 0.01`."""
        return ", ".join(f"{key} {plain(value)}" for key, value in self.changes.items())


def axis(text: str) -> Axis:
    """The axis that `KEY=VALUE,VALUE` or `KEY=LOW..HIGH` (powers of ten in between) says.

    Raises:
        StudyError: It does not.
    """
    key, equals, rest = text.partition("=")
    if not key or not equals or not rest:
        raise StudyError(f"--sweep {text}: write a key of the study and its values, e.g. strategy.mu=0.001,0.01,0.1")
    if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
        raise StudyError(f"--sweep {text}: {key} stays as it is in a sweep, or the trials could not be compared")
    low, dots, high = rest.partition("..")
    values = list(_decades(text, low, high)) if dots else [_value(text, one) for one in rest.split(",")]
    return Axis(key, tuple(v for i, v in enumerate(values) if v not in values[:i]))


def trials(document: Document, axes: Sequence[Axis]) -> list[Trial]:
    """Every combination of the axes' values as a study; equal studies stand once.

    An option of a net, loss or strategy is left out where the chosen one has no such option.

    Raises:
        StudyError: A combination is no valid study, an option fits none of them, or there are too many.
    """
    if len({a.key for a in axes}) < len(axes):
        raise StudyError("--sweep: each key may stand once")
    if math.prod(len(a.values) for a in axes) > MOST:
        raise StudyError(f"--sweep: more than {MOST} combinations")
    found: dict[str, Trial] = {}
    used: set[str] = set()
    # Choices come first, so that options are put into the one that was chosen.
    ordered = sorted(axes, key=lambda a: "." in a.key)
    for values in itertools.product(*(a.values for a in ordered)):
        trial = _trial(document, {a.key: v for a, v in zip(ordered, values, strict=True)})
        used |= trial.changes.keys()
        found.setdefault(trial.key, trial)
    if unused := [a.key for a in axes if a.key not in used]:
        raise StudyError(f"--sweep {unused[0]}: none of the chosen ones has such an option")
    return list(found.values())


def _trial(document: Document, wanted: Mapping[str, Any]) -> Trial:
    data = {k: copy.deepcopy(v) for k, v in document.data.items() if k not in SIMULATION_KEYS}
    changes = {}
    for key, value in wanted.items():
        if _set(data, key, value):
            changes[key] = value
    try:
        return Trial(document.validate(Study, data, also=SIMULATION_KEYS), changes)
    except StudyError as error:
        said = ", ".join(f"{k}={plain(v)}" for k, v in changes.items())
        raise StudyError("\n".join(f"with {said}: {line}" for line in str(error).splitlines())) from None


def _set(data: dict[str, Any], key: str, value: Any) -> bool:
    """Put the value at `key`; false where it is an option that the chosen net, loss or strategy has not."""
    *path, last = key.split(".")
    if path and path[0] in CHOICES and len(path) == 1:
        here = data.get(path[0], Study.model_fields[path[0]].default.name)
        chosen = {"name": here} if isinstance(here, str) else here
        registry = CHOICES[path[0]]
        name = chosen.get("name") if isinstance(chosen, dict) else None
        if name in registry.names() and last not in registry.options(str(name)).model_fields:
            return False
        data[path[0]] = chosen
    for part in path:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise StudyError(f"--sweep {key}: {part} of the study is {shown(data)}, which has no keys")
    data[last] = value
    return True


def _value(text: str, one: str) -> Any:
    """A value as it would be read in a study file."""
    try:
        return Document(Path("--sweep"), f"value: {one}").data["value"]
    except StudyError:
        raise StudyError(f"--sweep {text}: {one!r} is no value") from None


def _decades(text: str, low: str, high: str) -> Iterator[float]:
    ends = [_value(text, end) for end in (low, high)]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in ends) or ends[0] >= ends[1]:
        raise StudyError(f"--sweep {text}: LOW..HIGH wants two numbers above 0, the smaller first")
    steps = math.log10(ends[1] / ends[0])
    if abs(steps - round(steps)) > 1e-9:
        raise StudyError(f"--sweep {text}: LOW..HIGH goes in powers of ten; write the values with commas")
    for i in range(round(steps) + 1):
        yield float(f"{ends[0] * 10**i:.12g}")
