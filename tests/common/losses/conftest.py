from collections.abc import Callable

import pytest
import torch

Sample = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def sample() -> Sample:
    """Random logits `(2, K, *S)` in double precision and random labels `(2, *S)`."""

    def make(classes: int = 3, size: tuple[int, ...] = (6, 7, 5), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(2, classes, *size, generator=g, dtype=torch.float64)
        return logits, torch.randint(classes, (2, *size), generator=g)

    return make


@pytest.fixture
def four_pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes: p(1) = 0.8, 0.5, 0.2, 0.5 in reading order; the first two pixels are of class 1."""
    p = torch.tensor([0.8, 0.5, 0.2, 0.5], dtype=torch.float64).reshape(1, 1, 2, 2)
    return torch.cat((1 - p, p), dim=1).log(), torch.tensor([[[1, 1], [0, 0]]])
