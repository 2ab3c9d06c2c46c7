"""The trained weights as they are, in float32."""

from common.cards import UpdateCard, described


@described(
    UpdateCard(
        title="Full weights",
        source="McMahan et al. 2017, arXiv 1602.05629",
        suited="Wherever the line carries it; nothing is lost.",
        equation="w_k itself",
        size="4",
    )
)
class Full:
    """The site's weights after its training, bit for bit."""
