"""24 sites on one machine, each a real link and a real trainer, forked from one process before any thread runs."""

import copy
from pathlib import Path

import pytest

from tests.e2e.toy import STUDY, Toy

SITES, ROUNDS = 24, 20


@pytest.mark.full
def test_24_sites_finish_20_rounds(tmp_path: Path) -> None:
    study = copy.deepcopy(STUDY)
    study["training"]["steps"] = 2
    study["rounds"]["number"] = ROUNDS
    study["evaluation"]["every"] = 5
    toy = Toy(tmp_path, SITES, study=study)
    toy.start()
    try:
        run = toy.begin()
        outcome = toy.outcome(run, 3600)
        folded = [e for e in toy.deployment.events(run) if e["event"] == "folded"]
    finally:
        toy.deployment.close()
    assert [(e["round"], len(e["sites"])) for e in folded] == [(i + 1, SITES) for i in range(ROUNDS)]
    assert outcome == toy.expected
