"""Flower's own strategies, as they are installed."""

import logging
from typing import Any, Literal

import flwr.serverapp.strategy as installed
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import AggregationError

from common.cards import StrategyCard, described
from common.errors import RoundError, StudyError
from common.wire import ARRAYS, METRICS, Flat
from server.aggregation import weighted_mean
from server.spool import Reply
from server.strategies.base import Fold, Strategy

logging.getLogger("flwr").setLevel(logging.WARNING)  # else each class tells of each fold between our own lines
_OPT = frozenset({"eta", "tau"})
_BETAS = frozenset({"beta_1", "beta_2"})
_MOMENTS = ("m_t", "v_t")

# Each class with its settings; and which of its attributes go from round to round.
SETTINGS: dict[str, frozenset[str]] = {
    "FedAvg": frozenset(),
    "FedAvgM": frozenset({"server_learning_rate", "server_momentum"}),
    "FedAdagrad": _OPT,
    "FedAdam": _OPT | _BETAS,
    "FedYogi": _OPT | _BETAS,
    "FedMedian": frozenset(),
    "FedTrimmedAvg": frozenset({"beta"}),
    "Krum": frozenset({"num_malicious_nodes"}),
    "MultiKrum": frozenset({"num_malicious_nodes", "num_nodes_to_select"}),
    "Bulyan": frozenset({"num_malicious_nodes"}),
}
STATE = {"FedAvgM": ("momentum_vector",), "FedAdagrad": _MOMENTS, "FedAdam": _MOMENTS, "FedYogi": _MOMENTS}
Name = Literal[
    "FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi", "FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan"
]


@described(
    StrategyCard(
        title="Flower's own (any of its classes)",
        source="Beutel et al. 2020, arXiv 2007.14390; flwr.serverapp.strategy of the installed version",
        suited="comparing with what others run; ours need less memory and start where the papers start",
        equation="what the class does with the parameters of all sites",
        server="what the class keeps: up to two models; while it folds, all sites' updates at once",
    )
)
class Flower(Strategy):
    """`aggregate_train` of a class of `flwr.serverapp.strategy`, from a closed list.

    It sees the parameters alone: buffers are averaged as in FedAvg, because these classes would take a median or a
    momentum of counters and variances. Which sites train is not its to choose. Every update is in memory at once, so
    memory grows with the sites, which no other strategy's does. Not on the list are classes that send trees, that
    wrap another strategy, and QFedAvg, which wants the loss before training.

    Args:
        strategy: The class.
        eta: FedAdagrad, FedAdam, FedYogi: the server's rate; none: the class's own default, as for all of these.
        beta_1: FedAdam, FedYogi: decay of the first moment.
        beta_2: FedAdam, FedYogi: decay of the second moment.
        tau: FedAdagrad, FedAdam, FedYogi: the degree of adaptivity.
        server_learning_rate: FedAvgM.
        server_momentum: FedAvgM.
        beta: FedTrimmedAvg: the share that is cut off at either end.
        num_malicious_nodes: Krum, MultiKrum, Bulyan.
        num_nodes_to_select: MultiKrum.
    """

    def __init__(
        self,
        *,
        strategy: Name = "FedAvg",
        eta: float | None = None,
        beta_1: float | None = None,
        beta_2: float | None = None,
        tau: float | None = None,
        server_learning_rate: float | None = None,
        server_momentum: float | None = None,
        beta: float | None = None,
        num_malicious_nodes: int | None = None,
        num_nodes_to_select: int | None = None,
    ) -> None:
        given = {
            "eta": eta, "beta_1": beta_1, "beta_2": beta_2, "tau": tau, "server_learning_rate": server_learning_rate,
            "server_momentum": server_momentum, "beta": beta, "num_malicious_nodes": num_malicious_nodes,
            "num_nodes_to_select": num_nodes_to_select,
        }  # fmt: skip
        self._name, self._settings = strategy, {key: value for key, value in given.items() if value is not None}
        if wrong := sorted(set(self._settings) - SETTINGS[strategy]):
            known = ", ".join(sorted(SETTINGS[strategy])) or "none"
            raise StudyError(f"Flower's {strategy} has no option {', '.join(wrong)}; it has: {known}")
        try:
            self._made()
        except ValueError as error:
            raise StudyError(f"Flower's {strategy}: {error}") from None

    def _made(self) -> Any:
        return getattr(installed, self._name)(**self._settings)

    def fold(self, fold: Fold) -> Flat:
        """The next global weights; keeps the class's moments.

        Raises:
            RoundError: The class makes nothing of these replies.
        """
        flower = self._made()
        if hasattr(flower, "current_arrays"):
            base = _tensors(fold, fold.base["float32"])
            # FedAvgM keeps a record, the adaptive ones a dictionary of arrays.
            flower.current_arrays = _record(base) if self._name == "FedAvgM" else base
        for name in STATE.get(self._name, ()) if fold.memory else ():
            kept = {e.name: fold.memory[name][e.name].reshape(e.shape) for e in _parameters(fold)}
            setattr(flower, name, list(kept.values()) if name == "momentum_vector" else kept)
        replies = [_message(fold, reply, weight) for reply, weight in zip(fold.replies, fold.weights, strict=True)]
        try:
            arrays, _ = flower.aggregate_train(fold.round, replies)
        except AggregationError as error:
            raise RoundError(f"Flower's {self._name}: {error}") from None
        if arrays is None:
            raise RoundError(f"Flower's {self._name} makes nothing of {len(replies)} replies: it wants more of them")
        for name in STATE.get(self._name, ()):
            values = getattr(flower, name)
            if values is not None:
                if isinstance(values, list):
                    values = dict(zip((e.name for e in _parameters(fold)), values, strict=True))
                fold.memory[name] = {key: np.ascontiguousarray(value).reshape(-1) for key, value in values.items()}
        result = weighted_mean(fold.schema, fold.replies, fold.weights)
        for e in _parameters(fold):
            result["float32"][e.place] = arrays[e.name].numpy().reshape(-1)
        return result


def _parameters(fold: Fold) -> list[Any]:
    return [e for e in fold.schema.entries if e.kind == "parameter"]


def _tensors(fold: Fold, values: Any) -> dict[str, Any]:
    return {e.name: values[e.place].reshape(e.shape) for e in _parameters(fold)}


def _record(tensors: dict[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(values)) for name, values in tensors.items()})


def _message(fold: Fold, reply: Reply, weight: float) -> Message:
    arrays = _record(_tensors(fold, reply.read("float32", 0, fold.schema.sizes["float32"])))
    content = RecordDict({ARRAYS: arrays, METRICS: MetricRecord({"num-examples": weight})})
    return Message(content, dst_node_id=1, message_type="train")
