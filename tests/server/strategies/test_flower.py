"""The adapter gives what Flower's class gives, round after round, and takes nothing but the closed list."""

import flwr.serverapp.strategy as installed
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from common.errors import RoundError, StudyError
from common.registry import OptionsError
from common.wire import Entry, Schema
from server.strategies.flower import SETTINGS, STATE

SCHEMA = Schema((Entry("a", "float32", (2, 3), 0, 6), Entry("b", "float32", (4,), 6, 4)))


class Nodes(Grid):
    """Enough of a grid for Flower to make its messages."""

    def set_run(self, run): ...

    @property
    def run(self): ...

    def create_message(self, *_): ...

    def get_node_ids(self):
        return [1, 2, 3, 4, 5, 6, 7]

    def push_messages(self, messages): ...

    def pull_messages(self, ids): ...

    def send_and_receive(self, messages, *, timeout=None): ...


def record(values: np.ndarray) -> ArrayRecord:
    values = values.astype("float32")
    return ArrayRecord({"a": Array(values[:6].reshape(2, 3)), "b": Array(values[6:])})


@pytest.mark.parametrize("name", SETTINGS)
def test_three_rounds_are_those_of_the_class_itself(sites, strategy, name: str) -> None:
    """The class's own object goes through the rounds as Flower's loop drives it; ours is made anew in each."""
    options = {"FedAvgM": {"server_momentum": 0.8}, "FedTrimmedAvg": {"beta": 0.3}}.get(name, {})
    if "num_malicious_nodes" in SETTINGS[name]:
        options["num_malicious_nodes"] = 1
    theirs = getattr(installed, name)(**options)
    rng, run = np.random.default_rng(0), sites(SCHEMA)
    w = other = rng.normal(size=10).astype("float32")
    for number in (1, 2, 3):
        replies, weights = rng.normal(size=(7, 10)).astype("float32"), [1.0, 2, 3, 4, 5, 6, 7]
        w = run.fold(strategy("flower", strategy=name, **options), w, replies, weights)
        list(theirs.configure_train(number, record(other), ConfigRecord(), Nodes()))
        messages = [
            Message(
                RecordDict({"arrays": record(x), "metrics": MetricRecord({"num-examples": n})}),
                dst_node_id=1,
                message_type="train",
            )
            for x, n in zip(replies, weights, strict=True)
        ]
        arrays, _ = theirs.aggregate_train(number, messages)
        other = np.concatenate([arrays[k].numpy().reshape(-1) for k in ("a", "b")])
        np.testing.assert_allclose(w, other, rtol=1e-5, atol=1e-6)
    assert set(run.memory) == set(STATE.get(name, ()))


def test_every_setting_is_one_of_the_class(strategy) -> None:
    """Pins the names of the installed version."""
    for name, settings in SETTINGS.items():
        for setting in settings:
            strategy("flower", strategy=name, **{setting: 1 if setting.startswith("num") else 0.25})


def test_buffers_are_fedavgs(sites, strategy) -> None:
    schema = Schema(
        (
            Entry("w", "float32", (2,), 0, 2),
            Entry("n.running_mean", "float32", (1,), 2, 1, "buffer"),
            Entry("n.running_var", "float32", (1,), 3, 1, "buffer"),
        )
    )
    replies, base = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]], [0, 0, 0, 1]
    median = sites(schema).fold(strategy("flower", strategy="FedMedian"), base, replies)
    average = sites(schema).fold(strategy("fedavg"), base, replies)
    np.testing.assert_array_equal(median[:2], [5, 6])
    assert median[2:].tobytes() == average[2:].tobytes()


def test_what_is_not_on_the_list_is_refused(strategy) -> None:
    with pytest.raises(OptionsError):
        strategy("flower", strategy="os.system")
    with pytest.raises(OptionsError):
        strategy("flower", strategy="QFedAvg")
    with pytest.raises(StudyError, match=r"FedMedian has no option eta; it has: none"):
        strategy("flower", strategy="FedMedian", eta=0.1)
    with pytest.raises(StudyError, match=r"FedTrimmedAvg: .*\[0, 0\.5\)"):
        strategy("flower", strategy="FedTrimmedAvg", beta=0.7)


def test_too_few_replies_for_the_class_say_so(sites, strategy) -> None:
    by = strategy("flower", strategy="Bulyan", num_malicious_nodes=1)
    with pytest.raises(RoundError, match="Bulyan makes nothing of 3 replies"):
        sites(3).fold(by, np.zeros(3), np.ones((3, 3)))
