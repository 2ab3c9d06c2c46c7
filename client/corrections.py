"""What strategies add to the local training of a round: the client's halves, which know no strategy's name.

Each says what it needs of what the site kept, what it adds to loss or gradient, and what the site keeps after the
round; that is staged with the reply, so that a reply that is lost puts nothing ahead (`client/work/state.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.training import Correction, Span, autocast, make_optimizer, one_step, optimizer_tensors, restore_optimizer
from common.study import Training

Kept = Mapping[str, Tensor]


class Proximal(Correction):
    """μ/2‖w − w_global‖² is added to the loss (Li et al. 2020, FedProx, arXiv 1812.06127).

    Args:
        mu: Strength of the pull.
    """

    def __init__(self, mu: float) -> None:
        self._mu = mu

    def begin(self, net: nn.Module, span: Span) -> None:
        """The weights of now are those towards which it pulls."""
        self._parameters = list(net.parameters())
        self._anchor = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def gradient(self, step: int, rate: float) -> None:
        """The term's gradient is μ(w − w_global); autograd is not needed for it."""
        for parameter, start in zip(self._parameters, self._anchor, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self._mu)


class Control(Correction):
    """g ← g − c_k + c, with c_k the site's control variate and c the server's (Karimireddy et al. 2020, SCAFFOLD).

    After the round c_k⁺ = Σ η_t g_t / Σ η_t, the mean gradient on the way. With plain SGD at one rate this is the
    paper's option II, c_k − c + (w_global − w) / (Tη), and unlike that it is a gradient with every other optimiser too.
    A site without a control variate starts from c_k = c, which in round 1 is the paper's 0.

    Args:
        server: c, by parameter.
        kept: c_k as `control.NAME`, or nothing.
    """

    def __init__(self, server: Kept, kept: Kept) -> None:
        self._server = dict(server)
        self._own = {n: kept.get(f"control.{n}", c) for n, c in server.items()}

    def begin(self, net: nn.Module, span: Span) -> None:
        """No step is done."""
        self._parameters = {n: p for n, p in net.named_parameters() if n in self._server}
        device = {n: p.device for n, p in self._parameters.items()}
        self._shift = {n: (self._server[n] - self._own[n]).to(device[n]) for n in self._parameters}
        self._sum = {n: torch.zeros_like(p) for n, p in self._parameters.items()}
        self._rates = torch.zeros((), dtype=torch.float64)

    def restore(self, tensors: Kept) -> None:
        """The sums so far."""
        for name, total in self._sum.items() if tensors else ():
            total.copy_(tensors[f"sum.{name}"])
        self._rates = tensors.get("rates", self._rates)

    @torch.no_grad()
    def gradient(self, step: int, rate: float) -> None:
        """The gradient is counted, then corrected."""
        self._rates = self._rates + rate
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self._sum[name].add_(parameter.grad, alpha=rate)
                parameter.grad.add_(self._shift[name])

    def beside(self) -> dict[str, Tensor]:
        """The sums so far."""
        return {"rates": self._rates, **{f"sum.{n}": t for n, t in self._sum.items()}}

    def mean(self) -> dict[str, Tensor]:
        """c_k⁺ by parameter."""
        return {n: (t / self._rates.item()).cpu() for n, t in self._sum.items()}

    def keep(self) -> dict[str, Tensor]:
        """c_k⁺ as the site keeps it."""
        return {f"control.{n}": t for n, t in self.mean().items()}

    def sent(self) -> dict[str, Tensor]:
        """c_k⁺ − c_k, which goes to the server."""
        return {n: t - self._own[n] for n, t in self.mean().items()}


class Dynamic(Correction):
    """−⟨h_k, w⟩ + α/2‖w − w_global‖² is added to the loss (Acar et al. 2021, FedDyn, arXiv 2111.04263, equation 1).

    After the round h_k ← h_k − α(w − w_global): h_k is the gradient of the site's own loss where its training ended.

    Args:
        alpha: α.
        kept: h_k as `dynamic.NAME`; nothing is 0.
    """

    def __init__(self, alpha: float, kept: Kept) -> None:
        self._alpha, self._kept = alpha, kept

    def begin(self, net: nn.Module, span: Span) -> None:
        """The weights of now are the global ones."""
        self._parameters = dict(net.named_parameters())
        self._anchor = {n: p.detach().clone() for n, p in self._parameters.items()}
        self._linear = {
            n: torch.zeros_like(p).copy_(self._kept.get(f"dynamic.{n}", torch.zeros(())))
            for n, p in self._anchor.items()
        }

    @torch.no_grad()
    def gradient(self, step: int, rate: float) -> None:
        """Of the added terms: α(w − w_global) − h_k."""
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - self._anchor[name], alpha=self._alpha).sub_(self._linear[name])

    @torch.no_grad()
    def keep(self) -> dict[str, Tensor]:
        """The new h_k."""
        return {
            f"dynamic.{n}": self._linear[n] - self._alpha * (p.detach() - self._anchor[n])
            for n, p in self._parameters.items()
        }


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


class HeadFirst(Correction):
    """The first part of a round trains the head alone, the rest of it the body alone (Collins et al. 2021, FedRep).

    Args:
        share: Of the round's steps that are the head's.
        head: Names of the head's parameters.
    """

    def __init__(self, share: float, head: Sequence[str]) -> None:
        self._share, self._head = share, frozenset(head)

    def begin(self, net: nn.Module, span: Span) -> None:
        """The first step that is the body's."""
        self._turn = span.first + round(self._share * span.count)
        self._parameters = dict(net.named_parameters())

    def gradient(self, step: int, rate: float) -> None:
        """Who has no gradient is not moved."""
        for name, parameter in self._parameters.items():
            if (name in self._head) != (step < self._turn):
                parameter.grad = None


class Several(Correction):
    """All of them, one after the other."""

    def __init__(self, parts: Sequence[Correction]) -> None:
        self._parts = tuple(parts)

    def begin(self, net: nn.Module, span: Span) -> None:
        """Each begins."""
        for part in self._parts:
            part.begin(net, span)

    def restore(self, tensors: Kept) -> None:
        """Each from its own."""
        for i, part in enumerate(self._parts):
            part.restore(under(f"{i}.", tensors))

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Each watches."""
        with ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(part.watch())
            yield

    def loss(self, image: Tensor) -> Tensor | None:
        """The sum of what they add."""
        added = [term for part in self._parts if (term := part.loss(image)) is not None]
        return torch.stack(added).sum() if added else None

    def gradient(self, step: int, rate: float) -> None:
        """Each changes it."""
        for part in self._parts:
            part.gradient(step, rate)

    def stepped(self, image: Tensor, label: Tensor, step: int, rate: float) -> None:
        """Each is told."""
        for part in self._parts:
            part.stepped(image, label, step, rate)

    def beside(self) -> dict[str, Tensor]:
        """What each needs."""
        return {f"{i}.{name}": t for i, part in enumerate(self._parts) for name, t in part.beside().items()}

    def keep(self) -> dict[str, Tensor]:
        """What each keeps; their names differ."""
        return {name: t for part in self._parts for name, t in part.keep().items()}

    def sent(self) -> dict[str, Tensor]:
        """What each sends."""
        return {name: t for part in self._parts for name, t in part.sent().items()}


def under(prefix: str, tensors: Kept) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


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
