"""What strategies add to the gradients of a round: the client's halves, which know no strategy's name.

Each says what it needs of what the site kept, what it adds to loss or gradient, and what the site keeps after the
round; that is staged with the reply, so that a reply that is lost puts nothing ahead (`client/work/state.py`). Those
with a second net are in `client/second_nets.py`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from client.training import Correction, Span

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


class HeadFirst(Correction):
    """The first part of a round trains the head alone, the rest of it the body alone (Collins et al. 2021, FedRep).

    Each has at least one step; in a round of a single step both are trained.

    Args:
        share: Of the round's steps that are the head's.
        head: Names of the head's parameters.
    """

    def __init__(self, share: float, head: Sequence[str]) -> None:
        self._share, self._head = share, frozenset(head)

    def begin(self, net: nn.Module, span: Span) -> None:
        """The first step that is the body's."""
        self._both = span.count < 2
        self._turn = span.first + min(max(round(self._share * span.count), 1), span.count - 1)
        self._parameters = dict(net.named_parameters())

    def gradient(self, step: int, rate: float) -> None:
        """Who has no gradient is not moved."""
        for name, parameter in () if self._both else self._parameters.items():
            if (name in self._head) != (step < self._turn):
                parameter.grad = None


def under(prefix: str, tensors: Kept) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
