"""Cyclic weight transfer: the model goes from site to site, one in each round."""

from collections.abc import Sequence

from common.cards import StrategyCard, described
from server.strategies.fedavg import FedAvg


@described(
    StrategyCard(
        title="Cyclic weight transfer",
        source="Chang et al. 2018, JAMIA 25(8), doi 10.1093/jamia/ocy017",
        suited="comparisons, or sites of which only one can compute at a time; the last site weighs most",
        equation="in round r site (r − 1) mod K trains, and w ← its weights",
    )
)
class Cyclic(FedAvg):
    """In round r the site (r − 1) mod K trains, in roster order, and its weights are the next global ones.

    One cycle is K rounds, so as many passes over all sites need K times FedAvg's rounds. A round whose site does not
    answer stops the run as a missed quorum does: nobody else was asked.
    """

    def participants(self, round: int, roster: Sequence[str]) -> Sequence[str]:
        """One site."""
        return [roster[(round - 1) % len(roster)]] if roster else []
