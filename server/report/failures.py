"""What a simulation has no result for, and why: an arm that failed, a site that did not answer a final test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EVERYONE = "all"
LOCAL = "local"
PROBE = "probe"
"""Kind of a method that answers a question of its own and competes with none."""


@dataclass(frozen=True)
class Failure:
    """Results that are not there, or not whole.

    Attributes:
        trained_on: The site whose model it is, or "all".
        site: Where the model was to be tested; None: everywhere, the model itself failed.
    """

    seed: int
    method: str
    trained_on: str
    site: str | None
    why: str


def find_failures(results: Mapping[str, Any]) -> list[Failure]:
    """The failures that `results` states, and the tests that it lacks without a word.

    A model is expected at every site with test cases; a single site's model only at home and where nobody trained,
    because only there it counts.
    """
    stated = [
        Failure(f["seed"], f["method"], f["trained_on"], f.get("site"), f["why"]) for f in results.get("failures", ())
    ]
    known = {(f.seed, f.method, f.trained_on, f.site) for f in stated}
    there = {(c["seed"], c["method"], c["trained_on"], c["site"]) for c in results["cases"]}
    trained = [s["name"] for s in results["sites"] if s["use"] != "test"]
    silent = []
    for method, kind in ((m["key"], m["kind"]) for m in results["methods"]):
        for site in (s["name"] for s in results["sites"] if s["test"]):
            if kind == PROBE and site not in trained:
                continue  # only who trained can be left out
            owners = [EVERYONE] if method != LOCAL else [site] if site in trained else trained
            for seed, owner in ((s, o) for s in results["seeds"] for o in owners):
                mine = (seed, method, owner)
                if (*mine, site) not in there and not {(*mine, site), (*mine, None)} & known:
                    silent.append(Failure(*mine, site, "the results hold no test case of it"))
    return stated + silent
