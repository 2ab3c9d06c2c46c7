"""Three hospitals that decide differently, as their people do it: by commands, on real sites and a real coordinator.

Site 1 approves, and withdraws later. Site 2 approves, says then until when, which passes in mid-study, and renews it.
Site 3 rejects. The rounds go on with those who may; each site's records and the coordinator's report tell exactly that.
"""

import getpass
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.work.audit import FILE as AUDIT
from client.work.audit import entries, verify
from client.work.ledger import FILE as LEDGER
from client.work.ledger import lines
from common.study import load_study
from tests.e2e.deployment import Deployment, wait_until
from tests.e2e.toy import STUDY, hospitals

ONE, TWO, THREE = "site-01", "site-02", "site-03"
ROUNDS = 40
OPEN = {"steps": 1, "batch": 1, "cases": 1, "small": 1}


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "real")
    made.init()
    for name, data in hospitals(tmp_path / "scans", 3).items():
        made.enrol(name, data=str(data), approval={"approvers": 1}, policy=OPEN)
    yield made
    made.close()


def say(made: Deployment, site: str, *words: str, code: int = 0) -> str:
    return made.fedscan("site", "study", *words, "--home", made.site_home(site), code=code)


def state(made: Deployment, site: str) -> str | None:
    """How the study stands at a site, by its own list."""
    studies = json.loads(say(made, site, "list", "--json"))["studies"]
    return studies[0]["state"] if studies else None


def told(made: Deployment, kind: str, site: str) -> list[dict[str, Any]]:
    return [e for e in made.events() if e["event"] == kind and e.get("site") == site]


def wait_for(made: Deployment, site: str, kind: str, code: str | None = None) -> int:
    """Wait for an event after the first round began; the round in which it happened."""

    def found() -> list[int]:
        return [int(e["during"]) for e in told(made, kind, site) if e.get("code") == code and e["during"]]

    wait_until(lambda: made.alive() and bool(found()), 120, made.everything)
    return found()[0]


def records(made: Deployment, site: str) -> list[tuple[str, str, str | None]]:
    """What a site's audit log says of its people's decisions and of refusals: (what, who, code)."""
    path = made.site_home(site) / "trainer" / AUDIT
    verify(path)
    kinds = ("waiting", "approved", "rejected", "withdrawn", "refused")
    return [(e.event, e.who, e.code) for e, _ in entries(path) if e.event in kinds]


def trained(made: Deployment, site: str) -> list[int]:
    """The rounds of which a site's ledger says that an update left."""
    return [e.round for e, _ in lines(made.site_home(site) / "trainer" / LEDGER) if e.kind == "train" and e.arrays]


def test_three_hospitals_decide_differently(federation: Deployment, tmp_path: Path) -> None:
    made, me = federation, getpass.getuser()
    study = made.sign({**STUDY, "rounds": {**STUDY["rounds"], "number": ROUNDS, "quorum": 1.0}})
    made.start_server()
    for site in (ONE, TWO, THREE):
        made.start_site(site)
    made.begin(study)
    for site in (ONE, TWO, THREE):
        wait_until(lambda site=site: state(made, site) == "waiting", 60, made.everything)
    assert "outline liver and kidneys" in say(made, ONE, "show", "toy")
    assert not told(made, "joined", ONE)

    say(made, THREE, "reject", "toy", "--yes", "--why", "not our patients")
    for site in (ONE, TWO):
        say(made, site, "approve", "toy", "--yes")
    # Only once rounds go on: how long the first one takes to come depends on the machine.
    wait_until(lambda: made.alive() and bool(trained(made, TWO)), 120, made.everything)
    until = (datetime.now() + timedelta(seconds=5)).replace(microsecond=0)  # what the command can say
    say(made, TWO, "approve", "toy", "--yes", "--until", until.isoformat())
    over = wait_for(made, TWO, "refused", "E_APPROVAL_EXPIRED")
    assert datetime.now() > until
    assert state(made, TWO) == "expired"
    say(made, TWO, "approve", "toy", "--yes")
    back = wait_for(made, TWO, "agreed")
    kept = made.site_home(ONE) / "trainer" / "runs" / "state" / "run-1"
    wait_until(lambda: len(trained(made, TWO)) > back - over + 2 and kept.exists(), 60, made.everything)
    say(made, ONE, "withdraw", "toy", "--yes")
    left = wait_for(made, ONE, "refused", "E_APPROVAL_WITHDRAWN")
    assert 0 < over < back <= left < ROUNDS, "the machine is too fast or too slow for this test's moments"
    wait_until(lambda: not kept.exists(), 30, made.everything)
    made.wait()

    # The coordinator's events: rounds of those who might, every one of them, and nobody failed.
    folded = {e["round"]: e["sites"] for e in made.events() if e["event"] == "folded"}
    assert sorted(folded) == list(range(1, ROUNDS + 1))
    for number, sites in folded.items():
        may = [ONE] * (number < left) + [TWO] * (number < over or number >= back)
        # Whose approval ended while a round was open may have sent its update before.
        assert sites == may or (number in (over, left) and set(may) < set(sites) <= {ONE, TWO})
    assert not [e for e in made.events() if e["event"] == "failed"]
    assert {e["site"] for e in made.events() if e["event"] == "evaluated" and e["part"] == "test"} == {TWO}

    # Each site's own records.
    waiting, refused = ("waiting", "rule", None), "refused"
    assert records(made, THREE) == [
        waiting, (refused, "trainer", "E_APPROVAL_WAITING"), ("rejected", me, None),
        (refused, "trainer", "E_APPROVAL_REJECTED"),
    ]  # fmt: skip
    assert [r for r in records(made, TWO) if r[0] != refused] == [waiting, *[("approved", me, None)] * 3]
    assert (refused, "trainer", "E_APPROVAL_EXPIRED") in records(made, TWO)
    decisions = [waiting, ("approved", me, None), ("withdrawn", me, None)]
    assert [r for r in records(made, ONE) if r[0] != refused] == decisions
    assert records(made, ONE)[-1] == (refused, "trainer", "E_APPROVAL_WITHDRAWN")
    for site in (ONE, TWO):
        assert trained(made, site) == [number for number, sites in sorted(folded.items()) if site in sites]
    assert trained(made, THREE) == []
    assert not (made.site_home(THREE) / "cache").exists()

    # The coordinator's report.
    made.fedscan("run", "report", "run-1", "--out", tmp_path / "report")
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    digest = load_study(study).digest()
    assert numbers["study"]["digest"] == digest
    said = [(d["site"], d["during"], d["code"]) for d in numbers["decisions"]]
    assert sorted(said[:3]) == [(site, 0, "E_APPROVAL_WAITING") for site in (ONE, TWO, THREE)]
    assert set(said[3:6]) == {(ONE, 0, None), (TWO, 0, None), (THREE, 0, "E_APPROVAL_REJECTED")}
    assert said[6:] == [(TWO, over, "E_APPROVAL_EXPIRED"), (TWO, back, None), (ONE, left, "E_APPROVAL_WITHDRAWN")]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "its people withdrew their approval" in page
