"""What strategies add to the local training by a second net at the site: the client's halves of MOON and Ditto."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.corrections import Kept, Proximal, under
from client.training import Correction, Span, autocast, make_optimizer, one_step, optimizer_tensors, restore_optimizer
from common.study_training import Training


class Contrast(Correction):
    """μ ℓ is added to the loss: features shall be nearer to the global net's than to those of the site's last one.

    ℓ = −log(exp(s_g/τ) / (exp(s_g/τ) + exp(s_p/τ))), where s_g and s_p are the cosines between the features of the
    net and of the frozen global and previous nets (Li, He and Song 2021, MOON, arXiv 2103.16257, equation 3). For
    segmentation, features are what goes into the head, averaged over the image. In its first round a site has no
    previous net, and nothing is added.

    Args:
        mu: Strength.
        temperature: τ.
        heads: Gives the modules of a net's head.
        settings: The study's training section.
        kept: The site's net after its last counted round, as `previous.NAME`, or nothing.
    """

    def __init__(
        self,
        mu: float,
        temperature: float,
        heads: Callable[[nn.Module], Sequence[nn.Module]],
        settings: Training,
        kept: Kept,
    ) -> None:
        self._mu, self._temperature, self._heads, self._settings = mu, temperature, heads, settings
        self._kept = under("previous.", kept)

    def begin(self, net: nn.Module, span: Span) -> None:
        """The net of now is the global one."""
        self._net, self._frozen = net, []
        if self._kept:
            previous = deepcopy(net)
            previous.load_state_dict(self._kept)
            self._frozen = [n.requires_grad_(False).eval() for n in (deepcopy(net), previous)]

    @contextmanager
    def watch(self) -> Iterator[None]:
        """The features of the pass are seen."""
        if not self._frozen:
            yield
            return
        with _features(self._heads(self._net)) as seen:
            yield
        self._here = _pooled(seen)

    def loss(self, image: Tensor) -> Tensor | None:
        """μ ℓ, the mean over the patches."""
        if not self._frozen:
            return None
        near, far = (F.cosine_similarity(self._here, self._of(net, image)) / self._temperature for net in self._frozen)
        return self._mu * F.softplus(far - near).mean()

    def keep(self) -> dict[str, Tensor]:
        """The net as it was trained."""
        return {f"previous.{name}": value for name, value in self._net.state_dict().items()}

    @torch.no_grad()
    def _of(self, net: nn.Module, image: Tensor) -> Tensor:
        with autocast(self._settings, image.device), _features(self._heads(net)) as seen:
            net(image)
        return _pooled(seen)


class Personal(Correction):
    """A second, personal net v is trained beside on F_k(v) + λ/2‖v − w_global‖² (Li et al. 2021, Ditto, equation 1).

    It sees the same batches, has its own optimiser, and draws random numbers of its own: the site's update is bit for
    bit what it would be without.

    Args:
        pull: λ.
        loss_of: As in `train`.
        settings: The study's training section.
        seed: Of dropout in the personal net.
        kept: The personal net and its optimiser as `personal.net.NAME` and `personal.optimizer.INDEX.KEY`; nothing at
            the start, when v is the global net.
    """

    def __init__(
        self, pull: float, loss_of: nn.Module, settings: Training, seed: Callable[[int], int], kept: Kept
    ) -> None:
        self._pull, self._loss_of, self._settings, self._seed = Proximal(pull), loss_of, settings, seed
        self._kept = under("personal.", kept)

    def begin(self, net: nn.Module, span: Span) -> None:
        """The net of now is the global one."""
        # The pull is towards the global weights, so it begins before the personal ones are put in.
        self.net = deepcopy(net).train()
        self._pull.begin(self.net, span)
        self._optimizer = make_optimizer(self.net, self._settings)
        self.restore(self._kept)

    def restore(self, tensors: Kept) -> None:
        """Net and optimiser as they were."""
        if tensors:
            self.net.load_state_dict(under("net.", tensors))
            restore_optimizer(self._optimizer, {k: v for k, v in tensors.items() if k.startswith("optimizer.")})

    def stepped(self, image: Tensor, label: Tensor, step: int, rate: float) -> None:
        """The same step for the personal net."""
        devices = [image.device] if image.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self._seed(step))
            one_step(self.net, self._loss_of, self._optimizer, image, label, self._settings, step, rate, self._pull)

    def beside(self) -> dict[str, Tensor]:
        """Net and optimiser."""
        net = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        return net | dict(optimizer_tensors(self._optimizer))

    def keep(self) -> dict[str, Tensor]:
        """Net and optimiser as the site keeps them; the latter where the study wants that."""
        whole = self._settings.optimizer_state == "keep"
        return {f"personal.{n}": t for n, t in self.beside().items() if whole or n.startswith("net.")}


@contextmanager
def _features(heads: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What goes into `heads` while they work."""
    seen: list[Tensor] = []

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    with ExitStack() as stack:
        for head in heads:
            stack.enter_context(head.register_forward_pre_hook(see))
        yield seen


def _pooled(seen: Sequence[Tensor]) -> Tensor:
    """The mean over the image of the features (B, C, *S) at the finest grid, (B, C) float32."""
    finest = max(seen, key=lambda x: x[0, 0].numel())
    return finest.flatten(2).mean(2).float()
