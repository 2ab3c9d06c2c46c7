"""How long rounds wait: worked out by hand."""

from server.deadlines import BRIEF, FIRST, GRACE, Deadlines


def test_what_was_measured_decides() -> None:
    deadlines = Deadlines()
    assert deadlines.seconds("train", {"oslo": 100}) == FIRST
    # 100 steps in 50 s and 10 s on the line; 200 steps in 20 s and none on the line.
    deadlines.answered("train", "oslo", 100, 50, 60)
    deadlines.answered("train", "rome", 200, 20, 20)
    assert deadlines.seconds("train", {"oslo": 100}) == GRACE + 3 * 60
    assert deadlines.seconds("train", {"oslo": 100, "rome": 200}) == GRACE + 3 * 60
    assert deadlines.seconds("train", {"rome": 400}) == GRACE + 3 * 40
    # Nothing is known of lyon: as slow as the slowest, on the slowest line.
    assert deadlines.seconds("train", {"lyon": 1000}) == GRACE + 3 * (1000 * 0.5 + 10)


def test_lost_sites_are_not_waited_for_long() -> None:
    assert Deadlines().seconds("train", {}) == BRIEF


def test_evaluation_is_measured_apart() -> None:
    deadlines = Deadlines()
    deadlines.answered("train", "oslo", 100, 50, 60)
    assert deadlines.seconds("evaluate", {"oslo": 10}) == FIRST


def test_a_site_cannot_stretch_the_deadline_by_what_it_says() -> None:
    deadlines = Deadlines()
    deadlines.answered("train", "oslo", 10, 1e9, 5)
    assert deadlines.seconds("train", {"oslo": 10}) == GRACE + 15


def test_the_study_may_set_it() -> None:
    deadlines = Deadlines(override=30)
    deadlines.answered("train", "oslo", 10, 100, 500)
    assert deadlines.seconds("train", {"oslo": 10}) == 30


def test_who_answers_just_before_each_deadline_cannot_stretch_it_for_ever() -> None:
    deadlines = Deadlines()
    deadlines.answered("train", "oslo", 10, 50, 60)
    for _ in range(20):
        seconds = deadlines.seconds("train", {"oslo": 10, "mallory": 10})
        deadlines.answered("train", "mallory", 10, 50, seconds - 1)
    assert seconds == 24 * 3600
