"""FCN against the released networks: counts, sizes, bilinear start."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.errors import StudyError
from common.nets.fcn import FCN


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# By arithmetic on the released networks (VOC, 20 labels and background).
@pytest.mark.parametrize(
    ("stride", "classes", "parameters"),
    [(32, 21, 136_152_917), (16, 21, 134_815_994), (8, 21, 134_489_759), (8, 2, 134_271_430)],
)
def test_parameter_counts(stride, classes, parameters):
    with torch.device("meta"):
        assert count(FCN(2, 3, classes, stride=stride)) == parameters


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_a_score_map_starts_as_bilinear_interpolation(stride):
    """Against PyTorch's interpolation away from the border, which transposed convolution fades to 0."""
    net = FCN(2, 1, 3, stride=stride, width=1)
    x = torch.randn(1, 3, 6, 7)
    for up, factor in [*((up, 2) for up in net.up), (net.last, stride)]:
        cut = factor // 2
        ours = up(x)[..., cut:-cut, cut:-cut]
        theirs = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        inside = (..., slice(factor, -factor), slice(factor, -factor))
        torch.testing.assert_close(ours[inside], theirs[inside])


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 27), (100, 161)])
def test_any_size_comes_back(stride, size):
    net = FCN(2, 1, 2, stride=stride, width=1).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize(("stride", "source"), [(32, None), (16, None), (16, "3"), (8, None), (8, "3"), (8, "2")])
def test_output_lies_over_the_image(stride, source):
    """The released crops are where the maps' centres meet: each stage's scores lie where the image has its spot."""
    net = FCN(2, 1, 1, stride=stride, width=1, dropout=0.0)
    # The net as an average, of one stage's scores only; a spot of 32 voxels lies the same on every grid.
    net.pool = nn.AvgPool2d(2, ceil_mode=True)
    sources = {None: net.classifier[-1], **net.scores}
    with torch.no_grad():
        for module in [m for m in net.modules() if isinstance(m, nn.Conv2d)]:
            module.weight.fill_(1 / module.weight[0].numel())
        for name, module in sources.items():
            module.weight.mul_(name == source)
    x = torch.zeros(1, 1, 600, 600)
    x[..., 288:320, 288:320] = 1.0
    with torch.inference_mode():
        rows = net(x)[0, 0].double().sum(dim=1)
    centre = (rows * torch.arange(600)).sum() / rows.sum()
    assert abs(centre - 303.5) < 0.01


def test_scores_of_different_stages_are_summed():
    torch.manual_seed(0)
    net = FCN(2, 1, 2, stride=8, width=2).eval()
    x = torch.randn(1, 1, 40, 40)
    with torch.inference_mode():
        whole = net(x)
        for score in net.scores.values():
            nn.init.zeros_(score.weight)
        coarse = net(x)
        nn.init.zeros_(net.classifier[-1].weight)
        assert not net(x).any()
    assert not torch.allclose(whole, coarse)


def test_other_dimensions_are_refused():
    with pytest.raises(StudyError, match=r"takes data\.dimensions: 2, not 3"):
        FCN(3, 1, 2)


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_with_a_norm_small_images_are_refused(norm):
    net = FCN(2, 1, 2, width=1, norm=norm)
    assert net(torch.randn(1, 1, 32, 32)).shape == (1, 2, 32, 32)
    with pytest.raises(ValueError, match="the net needs sides of at least"):
        net(torch.randn(1, 1, 20, 20))
