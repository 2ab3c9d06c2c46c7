"""The names of the strategies. The code behind them is the server's; a site never loads it."""

from common.registry import Registry

STRATEGIES = Registry(
    "strategy",
    {
        "fedavg": "server.strategies.fedavg:FedAvg",
        "fedprox": "server.strategies.fedprox:FedProx",
    },
)
