"""A Flower app as Flower's users write them: FedAvg over separate tensors. `stock` copies this file into a bundle."""

import json
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
        self.replies: list[int] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As FedAvg does."""
        there = list(replies)
        self.replies.append(sum(not m.has_error() for m in there))
        folded: tuple[ArrayRecord | None, MetricRecord | None] = super().aggregate_train(server_round, there)
        return folded


server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and write when each of them ended."""
    config = context.run_config
    tensors, rounds = int(config["tensors"]), int(config["rounds"])
    rng = np.random.default_rng(0)  # constant weights would have equal chunks, and equal chunks travel once
    size = int(config["parameters"]) // tensors
    arrays = ArrayRecord([rng.standard_normal(size, np.float32) for _ in range(tensors)])
    ends: list[float] = []

    def ended(_: int, __: ArrayRecord) -> MetricRecord | None:
        ends.append(time.monotonic())
        return None

    sites = int(config["sites"])
    strategy = Counting(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    strategy.start(grid, arrays, num_rounds=rounds, evaluate_fn=ended)
    out = Path(str(config["out"]))
    part = out.with_suffix(".part")
    part.write_text(json.dumps({"ends": ends, "replies": strategy.replies}), encoding="utf-8")
    part.rename(out)


@client.train()
def train(message: Message, context: Context) -> Message:
    """No training: weights that differ from those received and from the other site's."""
    noise = np.float32(np.random.default_rng().standard_normal())
    received = message.content.array_records["arrays"]
    arrays = [a + noise for a in received.to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": 10})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)
