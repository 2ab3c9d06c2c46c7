"""What comes of a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        metrics: Numbers of the closed list; none with an error.
        arrays: The update, by dtype, little-endian.
        error: A code of `common.errors`, when there is no answer.
        norm: With an update: L2 norm of its difference from the weights that came.
    """

    metrics: dict[str, float] | None = None
    arrays: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    norm: float | None = None
