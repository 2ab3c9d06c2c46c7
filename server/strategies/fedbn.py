"""FedBN: as FedAvg, but each site has normalisation layers of its own."""

from common.cards import StrategyCard, described
from server.strategies.fedavg import FedAvg


@described(
    StrategyCard(
        title="FedBN",
        source="Li et al. 2021, ICLR, Algorithm 1, arXiv 2102.07623",
        suited="scanners and protocols that make unlike intensities; a net with batch normalisation",
        equation="as FedAvg, over all but the normalisation layers",
        site="its normalisation layers",
        sent="less than the weights: what stays at the site is not sent",
    )
)
class FedBN(FedAvg):
    """Normalisation layers, learnt scale and shift with running statistics, stay at the site; the rest is averaged.

    The paper has batch normalisation; here instance, group and layer normalisation stay as well.
    A site that was never in training has none of its own.
    """
