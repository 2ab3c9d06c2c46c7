"""SiloBN: as FedAvg, but each site has batch-norm statistics of its own."""

from common.cards import StrategyCard, described
from server.strategies.fedavg import FedAvg


@described(
    StrategyCard(
        title="SiloBN",
        source="Andreux et al. 2020, DART, arXiv 2008.07424",
        suited="scanners that make unlike intensities; a net with batch normalisation",
        equation="as FedAvg, over all but the running means and variances",
        site="its running statistics",
        sent="less than the weights: what stays at the site is not sent",
    )
)
class SiloBN(FedAvg):
    """Running statistics stay at the site; scale and shift and all the rest are averaged.

    The same as `rounds.buffers: local` with FedAvg. Without batch normalisation it is FedAvg.
    A site that was never in training has none of its own.
    """
