"""The arms of a simulation: the same study, run over different rosters.

Every arm goes through the same rounds, gates, checkpoints and training, so that nothing but the roster and the
strategy differs. Local training is a federation of one site; pooled training is one site that has everybody's cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from common.cards import card_of
from common.names import STRATEGIES
from common.section import Choice
from common.study import Study
from common.wording import plain

POOLED = "pooled"  # the name of the site that has all training cases
GIVEN = "given"  # the one method of a study that trains nothing
LEAVE_ONE_OUT = "leave_one_out"  # among the compared strategies: the study's own, each site left out in turn


@dataclass(frozen=True)
class Arm:
    """One run.

    Attributes:
        method: Key of the method that it belongs to; several arms may share one (`local`: one per site).
        study: What is run.
        train: Names of the sites that train.
        trained_on: The site's name for a local arm, else "all".
        without: The site that was left out, at which the model is then tested.
    """

    method: str
    study: Study
    train: tuple[str, ...]
    trained_on: str = "all"
    without: str | None = None

    @property
    def federated(self) -> bool:
        """Whether it is one of the compared strategies rather than a baseline."""
        return self.crossed and self.without is None

    @property
    def crossed(self) -> bool:
        """Whether anything leaves a site."""
        return self.trained_on == "all" and self.train != (POOLED,)

    @property
    def run(self) -> str:
        """Name of the run and of its folder."""
        site = self.without or (None if self.trained_on == "all" else self.trained_on)
        return self.method if site is None else f"{self.method}-{site}"


@dataclass(frozen=True)
class Method:
    """A row of the comparison."""

    key: str
    title: str
    kind: str


def judging(study: Study, sites: Sequence[str]) -> list[Arm]:
    """The one run of a study that trains nothing: the given model at every site."""
    return [Arm(GIVEN, study, tuple(sites))]


def methods(compare: Sequence[Choice], left_out: Choice | None = None) -> list[Method]:
    """All rows of the comparison, in the order in which they are shown; a study that trains nothing compares nothing.

    Args:
        compare: The compared strategies.
        left_out: The strategy with which each site is left out in turn, if one is.
    """
    if not compare:
        return [Method(GIVEN, "The given model", "federated")]
    federated = [Method(key, _title(choice), "federated") for key, choice in keyed(compare).items()]
    if left_out is not None:
        federated.append(Method(LEAVE_ONE_OUT, f"{_title(left_out)}, the site left out", "probe"))
    return [
        Method("local", "Local only", "baseline"),
        Method("consensus", "Consensus of local models", "baseline"),
        *federated,
        Method("pooled_t", "Pooled, T updates", "baseline"),
        Method("pooled_kt", "Pooled, K·T updates", "baseline"),
    ]


def keyed(compare: Sequence[Choice]) -> dict[str, Choice]:
    """The compared strategies by a key that is unique: the name, numbered where one stands twice."""
    result: dict[str, Choice] = {}
    for choice in compare:
        count = sum(c.name == choice.name for c in result.values())
        result[choice.name if not count else f"{choice.name}-{count + 1}"] = choice
    return result


def arms(study: Study, compare: Sequence[Choice], sites: Sequence[str], leave_one_out: bool = False) -> list[Arm]:
    """All runs of one seed; `leave_one_out` adds the study's own strategy without each of the sites.

    With T updates per site and K sites, local gets T, and pooled gets T (as much computing as one site) and K·T (as
    much as all sites together): federation is compared with the stronger.
    """
    # One site alone has nothing to keep local: its running statistics go with its weights.
    rounds = study.rounds.model_copy(update={"buffers": "aggregate"})
    evaluation = study.evaluation.model_copy(update={"own": None})
    # Nothing of these crosses, so nothing is coded.
    choices = {"strategy": Choice(name="fedavg"), "update": Choice(name="full")}
    alone = study.model_copy(update={**choices, "rounds": rounds, "evaluation": evaluation})
    k = len(sites)
    longer = alone.model_copy(
        update={
            "rounds": rounds.model_copy(update={"number": rounds.number * k}),
            "evaluation": evaluation.model_copy(update={"every": evaluation.every * k}),
        }
    )
    unseen = study.model_copy(update={"evaluation": evaluation})
    return [
        *(Arm(key, study.model_copy(update={"strategy": c}), tuple(sites)) for key, c in keyed(compare).items()),
        *(Arm("local", alone, (site,), site) for site in sites),
        Arm("pooled_t", alone, (POOLED,)),
        Arm("pooled_kt", longer, (POOLED,)),
        *(Arm(LEAVE_ONE_OUT, unseen, tuple(s for s in sites if s != x), without=x) for x in sites if leave_one_out),
    ]


def _title(choice: Choice) -> str:
    """Its name and those of its options that are not the usual ones; μ always, because no value of it is usual."""
    name = card_of(STRATEGIES.get(choice.name)).title.split(" (")[0]
    usual = {key: field.default for key, field in STRATEGIES.options(choice.name).model_fields.items()}
    told = {key: value for key, value in choice.options.items() if key == "mu" or value != usual[key]}
    options = ", ".join(f"{'μ' if key == 'mu' else key} = {plain(value)}" for key, value in told.items())
    return f"{name} ({options})" if options else name
