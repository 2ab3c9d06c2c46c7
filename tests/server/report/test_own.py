"""What the report says of the models with which sites end; rows are read off the events by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.report.own import choices
from tests.server.report.test_html import Page, write

Make = Callable[..., dict[str, Any]]
TEST = {"event": "evaluated", "part": "test", "round": 3, "num-examples": 9, "dice": 0.8}
EVENTS: list[dict[str, Any]] = [
    {"event": "evaluated", "part": "validation", "round": 3, "site": "oslo", "num-examples": 9, "dice": 0.7},
    {
        **TEST, "site": "oslo", "own-chosen": 1, "own-judged": 8, "own-validation-global": 0.71,
        "own-validation-finetuned": 0.74, "own-num-examples": 9, "own-dice": 0.83,
    },
    {
        **TEST, "site": "bergen", "own-chosen": 0, "own-judged": 0, "own-validation-global": 0.0,
        "own-validation-finetuned": 0.0, "own-num-examples": 0, "own-dice": 0.0,
    },
]  # fmt: skip


def test_rows_say_what_was_told_and_nothing_of_too_few_cases() -> None:
    bergen, oslo = choices(EVENTS)
    assert oslo == {
        "site": "oslo", "chosen": "the global model, fine-tuned", "cases": 8, "test": 0.8, "own_test": 0.83,
        "validation": {"the global model": 0.71, "the global model, fine-tuned": 0.74},
    }  # fmt: skip
    assert (bergen["chosen"], bergen["own_test"]) == ("the global model", None)
    assert set(bergen["validation"].values()) == {None}
    assert list(choices(EVENTS[:1])) == []


def test_a_model_that_a_site_never_made_has_no_score() -> None:
    """A site that took no part tells 0 of all but the global model; a global one that finds nothing has Dice 0."""
    told = {**TEST, "own-chosen": 0, "own-judged": 8, "own-num-examples": 9, "own-dice": 0.8}
    scores = {"own-validation-finetuned": 0.0, "own-validation-local": 0.0}
    away = {**told, **scores, "site": "away", "own-validation-global": 0.7}
    blank = {**told, **scores, "site": "blank", "own-validation-global": 0.0}
    assert [row["validation"] for row in choices([away, blank])] == [
        {"the global model": dice, "the global model, fine-tuned": None, "its local model": None} for dice in (0.7, 0.0)
    ]


def test_the_page_has_them(tmp_path: Path, make_results: Make) -> None:
    results = make_results(sites=2, rounds=1)
    without = write(tmp_path, results)
    away = {**EVENTS[1], "site": "away", "own-chosen": 0, "own-validation-finetuned": 0.0}
    told = [{"run": "ditto, seed 1", **c} for c in choices([*EVENTS, away])]
    page = " ".join(Page(write(tmp_path, results | {"choices": told})).text)
    assert "With which model each site ends" in page
    assert "the global model, fine-tuned 0.740" in page
    assert "the global model 0.710, the global model, fine-tuned –" in page
    assert "ditto, seed 1" in page
    assert "With which model" not in without
