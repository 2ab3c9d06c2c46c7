"""A site ready to work: its net and loss, warm from task to task, and its cases."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import Message
from torch import nn

from client.data.patches import Batches
from client.data.volume import SiteData
from client.gates import gate_in
from client.policy import Policy
from client.site import Limits, SiteConfig
from client.training import Progress, channels_last
from common.losses import build_loss
from common.nets import build_net
from common.schema import Schema
from common.seeds import derive
from common.study import Study
from common.wire import Flat


class Workplace:
    """A net and a loss that stay warm from task to task; sites of one process may share it.

    Holds one net: every task first loads the weights that it was sent.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._study: str | None = None
        self._schema: tuple[str, Schema] = ("", Schema(()))

    def schema(self, study: Study) -> Schema:
        """What crosses of the study's net; it is not built for that."""
        key = study.digest()
        if key != self._schema[0]:
            self._schema = (key, Schema.of(study))
        return self._schema[1]

    def take(self, study: Study, message: Message, limits: Limits) -> tuple[nn.Module, nn.Module, Flat]:
        """Net with the message's weights, loss of `study`, and all that came.

        The weights pass the gate, which needs no memory, before the net is built: a study with a net of absurd size
        would have to bring as many bytes.

        Raises:
            WireError: The message does not hold the weights of the study's net, or they are beyond the limits.
        """
        key = study.digest()
        schema = self.schema(study)
        flat = gate_in(schema, message, limits)
        if key != self._study:
            self._net = channels_last(build_net(study).to(self.device))
            self._loss = build_loss(study, self._net).to(self.device)
            self._study = key
        schema.load(flat, self._net)
        return self._net, self._loss, flat


class OpenSite:
    """A site ready to work: its configuration, its cases, its folder on disk.

    Args:
        config: The site's own settings.
        home: Where the site keeps its state and its per-case results; never leaves the site.
        load: Gives the site's cases, prepared for a study.
        workplace: Where its nets live.
        on_step: Called after each training step.
        steps: Training steps per round; as the study says for the site's own cases if none.
        policy: What may leave; a simulation has none.

    Attributes:
        progress: Gives, for the stream of batches and the number of steps, how far the round has come already.
        on_case: Called with (cases done, cases in all) after each case that is evaluated.
    """

    def __init__(
        self,
        config: SiteConfig,
        home: Path,
        load: Callable[[Study], SiteData],
        workplace: Workplace,
        on_step: Callable[[], None] = lambda: None,
        steps: Callable[[Study], int] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.config = config
        self.home = home
        self.workplace = workplace
        self.on_step = on_step
        self.progress: Callable[[int, int], Progress] = lambda stream, count: Progress()
        self.on_case: Callable[[int, int], None] = lambda done, total: None
        self._load = load
        self._steps = steps
        self.policy = policy
        self._plan: str | None = None
        self._batches: Batches | None = None

    def data(self, study: Study) -> SiteData:
        """The site's cases for `study`; prepared once for all studies that see them alike."""
        key = json.dumps(study.model_dump(mode="json", include={"data", "plan", "evaluation"}), sort_keys=True)
        if key != self._plan:
            self._data, self._plan, self._batches = self._load(study), key, None
        return self._data

    def batches(self, study: Study) -> Batches:
        """The site's stream of training batches.

        It is seeded by the study and by what the cases hold, not by the site's name: equal data give equal batches.
        """
        cases = self.data(study).train
        stream = derive(study.seed, "batches", *sorted(c.content for c in cases))
        if self._batches is None or self._batches.study.training != study.training:
            self._batches = Batches(cases, study, stream)
        return self._batches

    def steps(self, study: Study) -> int:
        """Training steps per round."""
        if self._steps is not None:
            return self._steps(study)
        if study.training.steps is not None:
            return study.training.steps
        return (study.training.epochs or 1) * self.batches(study).steps_per_epoch
