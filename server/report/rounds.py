"""From the events of a run to numbers: its curves, and what it took."""

from collections.abc import Iterator, Sequence
from typing import Any

from server.events import Event

Row = dict[str, Any]


def curve(events: Sequence[Event], rounds: int) -> Iterator[Row]:
    """Per round: most updates of a site so far, training loss and validation Dice by site.

    Args:
        events: Those that stand, see `read_events`.
        rounds: How many rounds the study has.
    """
    updates = 0.0
    for number in range(1, rounds + 1):
        here = [e for e in events if e.get("round") == number]
        trained = [e for e in here if e["event"] == "trained"]
        if not trained:
            continue
        updates += max(e["steps"] for e in trained)
        yield {
            "round": number, "updates": int(updates),
            "loss": {e["site"]: e["loss"] for e in trained},
            "validation": {e["site"]: e["dice"] for e in here
                           if e["event"] == "evaluated" and e["part"] == "validation" and e["num-examples"] > 0},
        }  # fmt: skip


def cost(events: Sequence[Event], sites: Sequence[str], crossed: bool = True) -> Row:
    """What a run took, up to its last checkpoint or its end.

    Bytes are those between sites and coordinator: an update per training, up, and the weights per training and
    evaluation, down.

    Args:
        events: Those that stand.
        sites: Roster order, in which the validation Dice of the best round is averaged.
        crossed: Whether anything left a site.
    """
    trained = [e for e in events if e["event"] == "trained"]
    evaluated = [e for e in events if e["event"] == "evaluated"]
    up, down = sizes(events) if crossed else (0, 0)
    last = next((e for e in reversed(events) if "best_round" in e), {})
    best = last.get("best_round") or None
    of = best if trained else 0
    dice = {e["site"]: e["dice"] for e in evaluated
            if e["part"] == "validation" and e["num-examples"] > 0 and e["round"] == of}  # fmt: skip
    ordered = [dice[s] for s in sorted(dice, key=lambda s: sites.index(s) if s in sites else len(sites))]
    return {
        "seconds": last.get("seconds", 0.0), "updates": int(sum(e["steps"] for e in trained)),
        "bytes_up": up * len(trained), "bytes_down": down * (len(trained) + len(evaluated)), "best_round": best,
        "validation": sum(ordered) / len(ordered) if ordered else None,
    }  # fmt: skip


def sizes(events: Sequence[Event]) -> tuple[int, int]:
    """Bytes of an update, and of the weights that are sent out."""
    up = next((e["bytes"] for e in events if e["event"] == "trained"), 0)
    return up, next((e.get("bytes", up) for e in events if e["event"] == "started"), up)
