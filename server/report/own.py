"""With which model each site ended, and what it gained by it."""

from collections.abc import Iterator, Sequence
from typing import Any

from common.own_choice import CANDIDATES, CHOSEN, JUDGED, PREFIX, Candidate, score_of
from server.events import Event

Row = dict[str, Any]
WORDS = {
    "global": "the global model", "finetuned": "the global model, fine-tuned", "personalised": "its personal model",
    "local": "its local model",
}  # fmt: skip


def choices(events: Sequence[Event]) -> Iterator[Row]:
    """One row per site that told of its choice: candidates with their validation Dice, and the test before and after.

    A number that few cases stand behind is None, and so is that of a model that the site did not make.
    """
    last = {e["site"]: e for e in events if e["event"] == "evaluated" and CHOSEN in e}
    for site, e in sorted(last.items()):
        judged = {name: e[score_of(name)] for name in CANDIDATES if score_of(name) in e}
        own = e[f"{PREFIX}dice"] if e[f"{PREFIX}num-examples"] > 0 else None
        yield {
            "site": site,
            "chosen": WORDS[CANDIDATES[int(e[CHOSEN])]],
            "cases": int(e[JUDGED]),
            "validation": {WORDS[name]: _measured(name, dice) if e[JUDGED] > 0 else None
                           for name, dice in judged.items()},
            "test": e["dice"] if e["num-examples"] > 0 else None,
            "own_test": own,
        }  # fmt: skip


def _measured(name: Candidate, dice: float) -> float | None:
    """The candidate's validation Dice; None where the site did not make it."""
    # A site that took no part in the training has the global model alone, and tells 0 of the others. One that was
    # made and has Dice 0 reads the same; it is never the chosen one, because of equal ones the global one is.
    return dice if name == "global" or dice > 0 else None
