"""What strategies keep at real sites is what they keep in one process: the weights are the same, bit for bit."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from client.models import home_models
from client.work.ledger import lines
from common.own_choice import CANDIDATES
from common.study import Study
from common.uplink import Uplink
from tests.e2e.deployment import wait_until
from tests.e2e.toy import STUDY, Toy

AGGREGATED = {"number": 3}  # running statistics cross, where the strategy does not keep them


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    toy = Toy(tmp_path_factory.mktemp("federation"))
    toy.start()
    yield toy
    toy.deployment.close()


@pytest.mark.parametrize("strategy", ["scaffold", "fedrep", "ditto"])
def test_a_deployed_study_ends_as_its_simulation(federation: Toy, strategy: str) -> None:
    """A control variate that crosses, layers of a site's own, a second net; and with what each site ends."""
    own = {"finetune": 2, "rate": 0.01, "local": True}
    study: dict[str, Any] = {
        **STUDY, "name": strategy, "strategy": {"name": strategy}, "rounds": AGGREGATED,
        "evaluation": {**STUDY["evaluation"], "own": own},
    }  # fmt: skip
    run = federation.begin(study)
    outcome = federation.outcome(run)
    assert outcome == federation.simulated(study)
    tested = [json.loads(told) for told in outcome["told"] if "own-chosen" in told]
    assert len(tested) == len(federation.sites)
    for told in tested:
        home = federation.deployment.site_home(told["site"])
        chosen = CANDIDATES[int(told["own-chosen"])]
        wanted = {None, None if chosen == "global" else chosen}
        wait_until(lambda h=home, w=wanted: {m.card.own for m in home_models(h)[0] if m.card.run == run} == w, 60, str)


def test_coded_updates_end_as_in_their_simulation_and_the_ledger_has_their_bytes(federation: Toy) -> None:
    """What earlier replies could not say is kept at real sites as in one process; what left is what was derived."""
    study: dict[str, Any] = {
        **STUDY, "name": "int8", "update": {"name": "int8", "block": 16}, "rounds": AGGREGATED,
    }  # fmt: skip
    run = federation.begin(study)
    outcome = federation.outcome(run)
    assert outcome == federation.simulated(study)
    uplink = Uplink.of(Study.model_validate(study))
    assert uplink.nbytes < 0.5 * uplink.schema.nbytes
    assert {e["bytes"] for told in outcome["told"] if (e := json.loads(told))["event"] == "trained"} == {uplink.nbytes}
    for site in federation.sites:
        home = federation.deployment.site_home(site)
        left = [line for line, _ in lines(home / "trainer" / "egress.jsonl") if (line.run, line.kind) == (run, "train")]
        assert len(left) == AGGREGATED["number"]
        for line in left:
            assert {dtype: array.elements for dtype, array in line.arrays.items()} == uplink.sizes
            assert sum(array.nbytes for array in line.arrays.values()) == uplink.nbytes
            assert line.norm is not None
            assert line.norm > 0
