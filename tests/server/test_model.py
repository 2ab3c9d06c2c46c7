"""The figures that go to every hospital of a run: none of them is one hospital's own."""

from typing import Any

from common.figures import Figures
from common.study import Study
from server.checkpoint import State
from server.model import figures

STUDY = Study.model_validate({
    "name": "toy", "data": {"labels": ["liver", "kidneys"]}, "plan": {"spacing": [3, 3, 3], "patch": [8, 8, 8]},
    "training": {"steps": 1},
})  # fmt: skip


def judged(site: str, liver: float, kidneys: float | None, part: str = "validation", number: int = 1) -> dict[str, Any]:
    """What a site said of a model; without kidneys none of its cases has any."""
    known = [liver] if kidneys is None else [liver, kidneys]
    return {
        "event": "evaluated", "site": site, "part": part, "round": number, "num-examples": 3,
        "dice": sum(known) / len(known), "dice.liver": liver, "cases.liver": 3,
        "dice.kidneys": kidneys or 0.0, "cases.kidneys": 0 if kidneys is None else 3,
    }  # fmt: skip


def trained(site: str, number: int = 1) -> dict[str, Any]:
    return {"event": "trained", "site": site, "round": number, "num-examples": 4}


def found(*events: dict[str, Any], best: int = 1) -> Figures:
    return figures(STUDY, State(digest=STUDY.digest(), round=2, best_round=best), events)


def test_means_over_the_sites() -> None:
    told = found(trained("oslo"), trained("turku"), judged("oslo", 0.5, 0.7), judged("turku", 0.9, 0.9))
    assert told.validation is not None
    assert (told.validation.sites, told.validation.cases) == (2, 6)
    assert [round(x, 9) for x in (told.validation.dice, *filter(None, told.validation.labels))] == [0.75, 0.7, 0.8]
    assert (told.sites, told.cases, len(told.curve), told.test) == (2, 8, 1, None)


def test_what_one_of_several_sites_said_alone_is_left_out() -> None:
    told = found(
        trained("oslo"), trained("turku"),
        judged("oslo", 0.5, 0.7), judged("turku", 0.9, None),  # one knows kidneys
        judged("oslo", 0.6, 0.8, number=2),  # the other had left by then
        judged("oslo", 0.6, 0.8, "test"),
    )  # fmt: skip
    assert told.validation is not None
    assert told.validation.labels == (0.7, None)
    assert told.test is None
    assert [point.round for point in told.curve] == [1]
    assert found(trained("oslo"), trained("turku"), judged("oslo", 0.6, 0.8, number=2), best=2).validation is None


def test_a_site_that_joined_and_was_never_asked_gets_nobody_elses_score() -> None:
    joined = {"event": "joined", "site": "turku", "round": 0}
    assert found(joined, trained("oslo"), judged("oslo", 0.5, 0.7)).curve == ()


def test_a_site_that_is_the_only_one_gets_its_own() -> None:
    told = found(trained("oslo"), judged("oslo", 0.5, 0.7), judged("oslo", 0.5, None, "test"))
    assert told.validation is not None
    assert told.test is not None
    assert (told.validation.labels, told.test.labels) == ((0.5, 0.7), (0.5, None))
