"""What a run ends with: the model of its best round as a file, and the study's figures."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from common.bundle import Card, write_bundle
from common.figures import MOST_POINTS, Figures, Point, Scores
from common.section import Part
from common.study import Study
from server.checkpoint import Checkpoints, State
from server.events import Event

FOLDER = "model"


def write_model(folder: Path, study: Study, state: State, checkpoints: Checkpoints, events: Sequence[Event]) -> Card:
    """Write the model of the run in `folder` into its folder `model`, over an earlier one.

    Args:
        folder: The run's; it has the run's name.
        study: What was run.
        state: Where the run stands; a round has counted.
        checkpoints: The run's.
        events: Those that stand.

    Raises:
        CheckpointError: The weights are damaged.
        StorageError: The disk is full.
    """
    weights = checkpoints.weights(state.best_round or state.round)
    found = figures(study, state, events)
    return write_bundle(folder / FOLDER, study, folder.name, weights, found, state.finished)


def figures(study: Study, state: State, events: Sequence[Event]) -> Figures:
    """The study's figures: means over sites, each site weighing the same, and sums.

    They go to every site that took part. So where several did, a mean over a single one is left out: it would be that
    site's own score.
    """
    chosen = state.best_round or state.round
    trained = [e for e in events if e["event"] == "trained"]
    fewest = min(2, len({e["site"] for e in events if e["event"] in ("joined", "trained", "evaluated")}))
    curve: dict[int, list[float]] = {}
    for e in events:
        if e["event"] == "evaluated" and e["part"] == "validation" and e["num-examples"] > 0:
            curve.setdefault(e["round"], []).append(e["dice"])
    rounds = sorted(number for number, dice in curve.items() if number and len(dice) >= fewest)
    points = [Point(round=number, dice=fmean(curve[number])) for number in _some(rounds)]
    return Figures(
        round=chosen,
        rounds=state.round,
        sites=len({e["site"] for e in trained}),
        cases=int(sum({e["site"]: e["num-examples"] for e in trained}.values())),
        validation=_scores(study, events, "validation", chosen, fewest),
        test=_scores(study, events, "test", chosen, fewest),
        curve=tuple(points),
    )


def _scores(study: Study, events: Sequence[Event], part: Part, number: int, fewest: int) -> Scores | None:
    of = {
        e["site"]: e
        for e in events
        if e["event"] == "evaluated" and (e["part"], e["round"]) == (part, number) and e["num-examples"] > 0
    }
    if len(of) < max(fewest, 1):
        return None
    labels = []
    for label in study.data.labels:
        # A label that no case of a site has, in truth or prediction, has a mean over nothing there.
        having = [e[f"dice.{label}"] for e in of.values() if e[f"cases.{label}"] > 0]
        labels.append(fmean(having) if len(having) >= max(fewest, 1) else None)
    return Scores(
        sites=len(of), cases=int(sum(e["num-examples"] for e in of.values())),
        dice=fmean(e["dice"] for e in of.values()), labels=tuple(labels),
    )  # fmt: skip


def _some(rounds: Sequence[int]) -> Sequence[int]:
    """At most `MOST_POINTS` of the rounds, evenly spread, the last among them."""
    if len(rounds) <= MOST_POINTS:
        return rounds
    last = len(rounds) - 1
    return [rounds[i * last // (MOST_POINTS - 1)] for i in range(MOST_POINTS)]
