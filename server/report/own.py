"""With which model each site ended, and what it gained by it."""

from collections.abc import Iterator, Sequence
from typing import Any

from common.own_choice import CANDIDATES, CHOSEN, JUDGED, PREFIX, score_of
from server.events import Event

Row = dict[str, Any]
WORDS = {
    "global": "the global model", "finetuned": "the global model, fine-tuned", "personalised": "its personal model",
    "local": "its local model",
}  # fmt: skip


def choices(events: Sequence[Event]) -> Iterator[Row]:
    """One row per site that told of its choice: candidates with their validation Dice, and the test before and after.

    A number that few cases stand behind is None.
    """
    last = {e["site"]: e for e in events if e["event"] == "evaluated" and CHOSEN in e}
    for site, e in sorted(last.items()):
        judged = {name: e[score_of(name)] for name in CANDIDATES if score_of(name) in e}
        own = e[f"{PREFIX}dice"] if e[f"{PREFIX}num-examples"] > 0 else None
        yield {
            "site": site,
            "chosen": WORDS[CANDIDATES[int(e[CHOSEN])]],
            "cases": int(e[JUDGED]),
            "validation": {WORDS[name]: dice if e[JUDGED] > 0 else None for name, dice in judged.items()},
            "test": e["dice"] if e["num-examples"] > 0 else None,
            "own_test": own,
        }
