"""How a round's validation compares with the best one so far, where sites come and go."""

from collections.abc import Mapping
from pathlib import Path

from server.checkpoint import State
from server.events import read_events


def best_among(scores: Mapping[str, float], state: State, path: Path) -> float:
    """The best metric so far, as a mean over the sites of `scores`: who came or left makes no round better.

    Args:
        scores: Validation Dice by site, of the round that is to be compared.
        state: With the best round and its metric.
        path: The run's events.

    Returns:
        The mean; −1, below every metric, where one of the sites did not measure the best round.
    """
    if not state.best_round:
        return state.best_metric
    then = {
        e["site"]: e["dice"]
        for e in read_events(path)
        if e["event"] == "evaluated" and e["part"] == "validation" and e["round"] == state.best_round
        and e["num-examples"] > 0
    }  # fmt: skip
    if then.keys() == scores.keys():
        return state.best_metric
    return sum(then[site] for site in scores) / len(scores) if scores.keys() <= then.keys() else -1.0
