"""A Flower app as Flower's users write them: FedAvg over separate tensors. `stock` copies this file into a bundle."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg


class Counting(FedAvg):
    """Flower's FedAvg, which also notes how many sites answered in each round."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.answered = 0

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As FedAvg does."""
        there = list(replies)
        self.answered = sum(not m.has_error() for m in there)
        folded: tuple[ArrayRecord | None, MetricRecord | None] = super().aggregate_train(server_round, there)
        return folded


server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and write the end of each as it comes, a line each: when, and how many sites had answered."""
    config = context.run_config
    tensors, rounds = int(config["tensors"]), int(config["rounds"])
    rng = np.random.default_rng(0)  # constant weights would have equal chunks, and equal chunks travel once
    size = int(config["parameters"]) // tensors
    arrays = ArrayRecord([rng.standard_normal(size, np.float32) for _ in range(tensors)])
    out = Path(str(config["out"]))

    def ended(number: int, _: ArrayRecord) -> MetricRecord | None:
        if number:
            with out.open("a", encoding="utf-8") as file:
                file.write(f"{time.monotonic()} {strategy.answered}\n")
        return None

    sites = int(config["sites"])
    strategy = Counting(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    strategy.start(grid, arrays, num_rounds=rounds, evaluate_fn=ended)


@client.train()
def train(message: Message, context: Context) -> Message:
    """No training: weights that differ from those received and from the other site's."""
    noise = np.float32(np.random.default_rng().standard_normal())
    received = message.content.array_records["arrays"]
    arrays = [a + noise for a in received.to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": 10})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)
