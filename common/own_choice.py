"""With which model each site ends: the names of the candidates, and what a site tells of its choice."""

from collections.abc import Mapping
from typing import Literal

from common.study import Study
from common.traits import traits_of

Candidate = Literal["global", "finetuned", "personalised", "local"]
CANDIDATES: tuple[Candidate, ...] = ("global", "finetuned", "personalised", "local")  # of equal ones the first counts
PREFIX = "own-"
CHOSEN, JUDGED = f"{PREFIX}chosen", f"{PREFIX}judged"


def candidates(study: Study) -> tuple[Candidate, ...]:
    """The models among which each site chooses, in the order of `CANDIDATES`; none where the study has no choice."""
    own = study.evaluation.own
    if own is None:
        return ()
    there: dict[Candidate, bool] = {
        "global": True, "finetuned": own.finetune > 0, "personalised": traits_of(study).personal, "local": own.local,
    }  # fmt: skip
    return tuple(name for name in CANDIDATES if there[name])


def score_of(candidate: Candidate) -> str:
    """Key of a candidate's mean Dice on the site's validation cases."""
    return f"{PREFIX}validation-{candidate}"


def choice_limits(study: Study, test: Mapping[str, float | None]) -> dict[str, float | None]:
    """What a site tells of its choice beside the final test, each with its largest value; none: no end.

    `own-chosen` is the model's place in `CANDIDATES`, `own-validation-NAME` the mean validation Dice of each candidate
    over `own-judged` cases, 0 of none and of a candidate that the site did not make; and of the chosen model what the
    final test tells of the global one.

    Args:
        study: What is run.
        test: The same of the final test.
    """
    among = candidates(study)
    if not among:
        return {}
    scores: dict[str, float | None] = {score_of(name): 1.0 for name in among}
    tested = {PREFIX + key: most for key, most in test.items() if key != "seconds"}
    return {CHOSEN: len(CANDIDATES) - 1, JUDGED: None, **scores, **tested}
