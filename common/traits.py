"""What a strategy changes in what crosses between site and coordinator; both ends read this table.

A strategy that is not listed sends the net's weights both ways and the usual numbers, and keeps nothing at a site.
"""

from dataclasses import dataclass
from typing import Literal

from common.study import Study


@dataclass(frozen=True)
class Traits:
    """What is special about one strategy.

    Attributes:
        control: A control variate, one number for each parameter, crosses both ways beside the weights.
        local: What never leaves a site: nothing, the running `statistics` of batch normalisation, all of the
            normalisation layers (`norm`), or the layers that make the classes (`head`).
        gap: A site also says the losses of the net as it came and as it was trained, on the same patches.
        personal: A site trains a second net, which never leaves.
    """

    control: bool = False
    local: Literal["none", "statistics", "norm", "head"] = "none"
    gap: bool = False
    personal: bool = False


TRAITS = {
    "ditto": Traits(personal=True),
    "scaffold": Traits(control=True),
    "fedbn": Traits(local="norm"),
    "silobn": Traits(local="statistics"),
    "fedper": Traits(local="head"),
    "fedrep": Traits(local="head"),
    "feddg_ga": Traits(gap=True),
}


def traits_of(study: Study) -> Traits:
    """The traits of the study's strategy; a site needs no code of the strategy for it."""
    return TRAITS.get(study.strategy.name, Traits())


def keeps_layers(study: Study) -> bool:
    """Whether each site keeps layers of the net for itself."""
    return study.rounds.buffers == "local" or traits_of(study).local != "none"
