"""Every name that a study may use for a net, a loss or a strategy: three closed tables of import targets.

An entry is imported when it is first used. The strategies' code is the server's; a site never loads it.
"""

from common.registry import Registry

NETS = Registry(
    "net",
    {
        "dynunet": "common.nets.dynunet:dynunet",
        "unet": "common.nets.unet:UNet",
        "segresnet": "common.nets.segresnet:segresnet",
    },
)

LOSSES = Registry(
    "loss",
    {
        "dice_ce": "common.losses.compound:DiceCELoss",
        "dice": "common.losses.overlap:DiceLoss",
        "ce": "common.losses.distribution:CELoss",
    },
)

STRATEGIES = Registry(
    "strategy",
    {
        "fedavg": "server.strategies.fedavg:FedAvg",
        "fedprox": "server.strategies.fedprox:FedProx",
    },
)
