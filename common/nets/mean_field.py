"""Mean-field inference in a conditional random field with Gaussian edges, differentiable, without compiled code.

Sources: Krähenbühl and Koltun 2011 (arXiv 1210.5644) for the model, Zheng et al. 2015 (arXiv 1502.03240) for its use as
a layer, Teichmann and Cipolla 2018 (arXiv 1805.04777) for the window. A voxel is tied to each other voxel at most
`radius` away per axis, exactly; farther ones are left out. With a radius that covers the image nothing is left out:
then this is the fully connected model. Two Gaussians weigh a neighbour at offset d whose intensities differ by e:

    smoothness    exp(-|d|² / 2 sigma_smooth²)
    appearance    exp(-|d|² / 2 sigma_space² - |e|² / 2 sigma_image²)

Each voxel's weights are divided by their sum plus 1, the weight it would give itself, as in filtering: a message lies
between 0 and 1 whatever the radius, and a voxel that resembles none of its neighbours hears little of them.
"""

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional as F

_CONV = {2: F.conv2d, 3: F.conv3d}


def mean_field(
    unary: torch.Tensor,
    image: torch.Tensor,
    *,
    iterations: int,
    radius: int | Sequence[int],
    smoothness: float | torch.Tensor,
    appearance: float | torch.Tensor,
    sigma_smooth: float,
    sigma_space: float,
    sigma_image: float,
    compatibility: torch.Tensor | None = None,
    spacing: Sequence[float] | None = None,
) -> torch.Tensor:
    """Logits of each voxel's distribution after `iterations` rounds of messages; their softmax are the probabilities.

    Gradients reach `unary`, the two weights and `compatibility`, not the image. Memory with gradients: one number per
    voxel and neighbour. Without, neighbours are weighed anew in each round and nothing is kept.

    Args:
        unary: Logits `(B, K, *S)` in 2D or 3D, e.g. a net's, or log-probabilities.
        image: Intensities `(B, C, *S)` that tell which neighbours are alike.
        iterations: Rounds, 1 or more.
        radius: Neighbours per axis and direction, one number or one per axis.
        smoothness: Weight of the first Gaussian, one number or one per class `(K,)`.
        appearance: Weight of the second, likewise.
        sigma_smooth: Reach of the first, in voxels or in the unit of `spacing`.
        sigma_space: Reach of the second.
        sigma_image: Difference of intensity, over all channels, that the second tolerates.
        compatibility: Cost `(K, K)` of label l (row) beside label l' (column); none for Potts: 1 unless l = l'.
        spacing: Size of a voxel per axis; none for 1.

    Returns:
        `(B, K, *S)` in fp32, or in fp64 where `unary` is.
    """
    axes = unary.ndim - 2
    reach = (radius,) * axes if isinstance(radius, int) else tuple(radius)
    sizes = (1.0,) * axes if spacing is None else tuple(spacing)
    precise = torch.promote_types(unary.dtype, torch.float32)
    with _full_precision(unary.device):
        unary = unary.to(precise)
        image = image.detach().to(precise)
        near = _Smoothness(image, reach, sizes, sigma_smooth)
        learns = any(
            isinstance(t, torch.Tensor) and t.requires_grad for t in (unary, smoothness, appearance, compatibility)
        )
        keep = learns and torch.is_grad_enabled()
        alike = _Appearance(image, reach, sizes, sigma_space, sigma_image, keep=keep)
        logits = unary
        for _ in range(iterations):
            q = logits.softmax(dim=1)
            heard = _per_class(smoothness, q) * near(q) + _per_class(appearance, q) * alike(q)
            logits = unary - _cost(heard, compatibility)
        return logits


class _Smoothness:
    """Messages of the first Gaussian: one convolution, the same everywhere but at the border."""

    def __init__(self, image: torch.Tensor, reach: tuple[int, ...], sizes: tuple[float, ...], sigma: float) -> None:
        kernel = torch.ones((), dtype=image.dtype, device=image.device)
        for r, size in zip(reach, sizes, strict=True):
            steps = torch.arange(-r, r + 1, dtype=image.dtype, device=image.device) * (size / sigma)
            kernel = kernel[..., None] * torch.exp(-0.5 * steps * steps)
        # The middle is the voxel itself, which sends itself no message.
        kernel[tuple(reach)] = 0
        self.kernel, self.reach = kernel[None, None], reach
        self.total = 1 + self.filter(torch.ones_like(image[:1, :1]))

    def filter(self, x: torch.Tensor) -> torch.Tensor:
        return _CONV[len(self.reach)](x, self.kernel, padding=self.reach)

    def __call__(self, q: torch.Tensor) -> torch.Tensor:
        size = q.shape[2:]
        return self.filter(q.reshape(-1, 1, *size)).reshape(q.shape) / self.total


class _Appearance:
    """Messages of the second Gaussian: its weights depend on the place, so neighbours are taken one by one."""

    def __init__(
        self, image: torch.Tensor, reach: tuple[int, ...], sizes: tuple[float, ...], space: float, tolerance: float,
        *, keep: bool,
    ) -> None:  # fmt: skip
        self.size, self.reach = image.shape[2:], reach
        self.image = image / (math.sqrt(2) * tolerance)
        # No neighbour beyond the border: an infinite difference has weight 0.
        self.padded = self.pad(self.image, math.inf)
        self.distance = {
            offset: 0.5 * sum((o * s / space) ** 2 for o, s in zip(offset, sizes, strict=True))
            for offset in itertools.product(*(range(-r, r + 1) for r in reach))
            if any(offset) and all(abs(o) < n for o, n in zip(offset, self.size, strict=True))
        }
        self.kept = {offset: self.weigh(offset) for offset in self.distance} if keep else {}
        self.total = torch.ones_like(image[:, :1])
        for offset in self.distance:
            self.total = self.total + self.weight(offset)

    def pad(self, x: torch.Tensor, value: float) -> torch.Tensor:
        return F.pad(x, [r for r in reversed(self.reach) for _ in range(2)], value=value)

    def at(self, padded: torch.Tensor, offset: tuple[int, ...]) -> torch.Tensor:
        for axis, (o, r, n) in enumerate(zip(offset, self.reach, self.size, strict=True), start=2):
            padded = padded.narrow(axis, r + o, n)
        return padded

    def weigh(self, offset: tuple[int, ...]) -> torch.Tensor:
        difference = self.at(self.padded, offset) - self.image
        return torch.exp(-difference.square().sum(dim=1, keepdim=True) - self.distance[offset])

    def weight(self, offset: tuple[int, ...]) -> torch.Tensor:
        return self.kept[offset] if self.kept else self.weigh(offset)

    def __call__(self, q: torch.Tensor) -> torch.Tensor:
        padded = self.pad(q, 0.0)
        heard = torch.zeros_like(q)
        for offset in self.distance:
            heard = heard + self.weight(offset) * self.at(padded, offset)
        return heard / self.total


def _per_class(weight: float | torch.Tensor, q: torch.Tensor) -> float | torch.Tensor:
    if isinstance(weight, torch.Tensor) and weight.ndim:
        return weight.to(q.dtype).reshape(-1, *(1,) * (q.ndim - 2))
    return weight


def _cost(heard: torch.Tensor, compatibility: torch.Tensor | None) -> torch.Tensor:
    if compatibility is None:
        return heard.sum(dim=1, keepdim=True) - heard
    return torch.einsum("lm,bm...->bl...", compatibility.to(heard.dtype), heard)


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Small differences of probabilities add up over the rounds: no half precision, even under autocast."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
