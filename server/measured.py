"""How a round's validation compares with the best one so far, where sites come and go and labels are rare."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from server.checkpoint import State
from server.events import read_events

Said = Mapping[str, float | None]
"""Validation Dice by site; none where nothing counted: too few cases, or neither truth nor prediction has a label."""


def best_after(number: int, said: Said, state: State, path: Path) -> tuple[int, float]:
    """The best round and its metric, once round `number` was validated by all who had to.

    Two rounds are compared over the sites that have a value in both: who came or left, and a site where rightly
    nothing was found, makes no round better or worse.

    Args:
        number: The round.
        said: Of that round.
        state: With the best round so far, 0 for none, and its metric.
        path: The run's events.

    Returns:
        Both as they are from now on; 0 and −1 where no round is known to be the best.
    """
    now = {site: dice for site, dice in said.items() if dice is not None}
    if not now:
        # Nothing was found where nothing is. A best round that found what is not there everywhere is none.
        return (state.best_round, state.best_metric) if state.best_metric > 0 else (0, -1.0)
    then: dict[str, float | None] = {
        e["site"]: e["dice"] if e["num-examples"] > 0 else None
        for e in read_events(path)
        if e["event"] == "evaluated" and e["part"] == "validation" and e["round"] == state.best_round
    }
    both = [(dice, known) for site, dice in now.items() if (known := then.get(site)) is not None]
    newcomers = now.keys() - then.keys()
    if newcomers or not both or fmean(new for new, _ in both) > fmean(old for _, old in both):
        return number, fmean(now.values())
    return state.best_round, state.best_metric
