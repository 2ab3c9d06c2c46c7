"""A whole federation over a line that breaks, crawls, lies and disappears: the study ends as its simulation.

The line's failures and the link's answers to each are tested one by one in test_site_link.py; here they meet a study.
"""

import copy
import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from common.study import Study
from common.wire import Schema
from tests.e2e.crash import Trouble
from tests.e2e.deployment import SERVER, free_port, wait_until
from tests.e2e.toy import STUDY, Toy
from tests.e2e.unreliable import Line

LINK, TRAINER = "site-01.link", "site-01.trainer"
CHUNK = 5 * 1024 * 1024  # bytes of the largest object: what a cut may cost
MB = 1_000_000  # for heads, polls and heartbeats

# Where a process waits while the line is cut. Two sites, three rounds of three steps.
PHASES = {
    "while-sites-join": (LINK, Trouble("client.network.fleet:Fleet.announce", 1, "hold")),
    "during-download": (LINK, Trouble("client.network.download:_write", 3, "hold")),
    "before-training": (LINK, Trouble("client.network.fleet:Fleet.confirm", 2, "hold")),
    "during-training": (TRAINER, Trouble("client.training:rate_at", 5, "hold")),
    "during-upload": (LINK, Trouble("client.network.fleet:Fleet.push", 7, "hold")),
    "during-fold": (SERVER, Trouble("server.spool:Reply.read", 3, "hold")),
    "during-validation": (TRAINER, Trouble("client.app:evaluate", 2, "hold")),
    "during-checkpoint": (SERVER, Trouble("server.checkpoint:save_file", 2, "hold")),
    "before-the-final-test": (SERVER, Trouble("server.rounds:Run._final_test", 1, "hold")),
}


class Lined:
    """A federation whose sites reach the coordinator over `line` only."""

    def __init__(self, toy: Toy, line: Line) -> None:
        self.toy, self.line, self.deployment = toy, line, toy.deployment

    def last_problem(self, site: str = "site-01") -> str:
        """What troubled the site's link last."""
        path = self.deployment.site_home(site) / "shared" / "link.json"
        found = json.loads(path.read_text())["last_problem"] if path.exists() else None
        return found["code"] if found else ""

    def restart_server(self, trouble: str = "") -> None:
        assert self.deployment.kill(SERVER, signal.SIGTERM) == 0, self.deployment.log(SERVER)
        self.deployment.start_server(trouble)


@pytest.fixture(scope="module")
def lined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lined]:
    port = free_port()
    with Line(port, dark=1.0) as line:
        toy = Toy(tmp_path_factory.mktemp("network"), ports=(port, line.port))
        toy.start()
        yield Lined(toy, line)
        toy.deployment.close()


def broken_at(lined: Lined, phase: str, how: Callable[[], None], seconds: float) -> None:
    where, trouble = PHASES[phase]
    lined.deployment.arm(where, trouble)
    run = lined.toy.begin()
    lined.deployment.held(where)
    connections = lined.line.connections
    how()
    lined.deployment.release(where)
    assert lined.toy.outcome(run, 300 + seconds) == lined.toy.expected
    assert lined.line.connections > connections


@pytest.mark.parametrize("phase", ["during-upload"])
def test_cut_for_a_few_seconds(lined: Lined, phase: str) -> None:
    broken_at(lined, phase, lambda: lined.line.darken(3), 3)


@pytest.mark.full
@pytest.mark.parametrize("phase", PHASES)
def test_cut_for_a_minute_at_each_phase(lined: Lined, phase: str) -> None:
    broken_at(lined, phase, lambda: lined.line.darken(60), 60)


@pytest.mark.full
@pytest.mark.parametrize("phase", ["during-download", "during-training", "during-upload"])
def test_silent_for_a_minute(lined: Lined, phase: str) -> None:
    """Connections stay, and nothing comes through: no end of the line is told."""
    broken_at(lined, phase, lambda: lined.line.hush(60), 60)


def test_some_answers_are_a_broken_gateways(lined: Lined) -> None:
    lined.restart_server("500")
    run = lined.toy.begin()
    wait_until(lambda: lined.last_problem() == "coordinator", 60, lined.deployment.everything)
    assert lined.toy.outcome(run) == lined.toy.expected
    lined.restart_server()


def test_nothing_answers_when_the_sites_start(lined: Lined) -> None:
    """First the line is dark, then nobody listens behind it; the sites are there before the coordinator."""
    made = lined.deployment
    links = [f"{site}.link" for site in lined.toy.sites]
    for name in (*links, SERVER):
        assert made.kill(name, signal.SIGTERM) == 0, made.log(name)
    lined.line.darken(2)
    for site in lined.toy.sites:
        made.start_link(site)
    wait_until(lambda: lined.last_problem() == "cut", 60, made.everything)
    time.sleep(3)
    made.start_server()
    assert lined.toy.outcome(lined.toy.begin()) == lined.toy.expected


def test_the_name_is_not_known_for_a_while(lined: Lined) -> None:
    """The resolver says four times that it does not know the coordinator, in the middle of a run."""
    made = lined.deployment
    made.arm(TRAINER, Trouble("client.training:rate_at", 2, "hold"))
    run = lined.toy.begin()
    made.held(TRAINER)
    made.arm(LINK, Trouble("socket:getaddrinfo", 4, "unknown"))
    lined.line.cut()
    wait_until(lambda: lined.last_problem() == "dns", 60, made.everything)
    made.release(TRAINER)
    assert lined.toy.outcome(run) == lined.toy.expected


def large(width: int) -> dict[str, Any]:
    """A study of one round whose updates are large."""
    study = copy.deepcopy(STUDY)
    study["net"] |= {"width": width, "levels": 5}
    study["training"] |= {"steps": 1, "batch": 1, "rate": 0.0001, "optimizer_state": "reset"}
    study["rounds"] |= {"number": 1}
    return study


def slowly(lined: Lined, study: dict[str, Any], rate: float) -> None:
    """Three cuts, each in the middle of the way there or back, each with a second of darkness."""
    line, sites = lined.line, ("site-01",)
    nbytes = Schema.of(Study.model_validate(study)).nbytes
    expected = lined.toy.simulated(study, sites)
    before = dict(line.total)
    line.rate, line.cuts = rate, [("down", nbytes * 0.5), ("up", nbytes * 0.3), ("up", nbytes * 0.4)]
    try:
        outcome = lined.toy.outcome(lined.toy.begin(study, sites), 120 + 10 * nbytes / rate)
    finally:
        line.rate = None
    assert outcome == expected
    assert line.cuts == []
    went = {way: line.total[way] - before[way] for way in before}
    # There once to train and once, with other weights, to validate; back once. A cut costs an object at most.
    assert nbytes < went["up"] < nbytes + 2 * CHUNK + MB
    assert 2 * nbytes < went["down"] < 2 * nbytes + 2 * CHUNK + MB


def test_an_update_of_a_few_chunks_over_a_slow_line(lined: Lined) -> None:
    slowly(lined, large(20), 5e6)


@pytest.mark.full
def test_100_mb_over_1_mb_per_second(lined: Lined) -> None:
    slowly(lined, large(58), 1e6)
