"""3D-SkipDenseSeg against the authors' parameter count and outputs, MONAI's dense blocks and a grouped convolution."""

import numpy as np
import pytest
import torch
from monai.networks.nets.densenet import _DenseBlock
from torch import nn

from common.errors import StudyError
from common.nets.skipdenseseg import SkipDenseSeg, UpPerClass


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# The authors' DenseNet(num_init_features=32, growth_rate=16, block_config=(4, 4, 4, 4)) for 2 channels and 4 classes.
def test_parameters_of_the_authors_net():
    with torch.device("meta"):
        assert count(SkipDenseSeg(3, 2, 4)) == 1_552_256


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_weights_of_the_skips_do_not_depend_on_the_number_of_classes(classes):
    with torch.device("meta"):
        assert [count(skip) for skip in SkipDenseSeg(3, 1, classes).skips] == [
            96 * 4**3, 112 * 6**3, 120 * 10**3, 124 * 18**3,
        ]  # fmt: skip


def test_outputs_of_the_authors_net_with_the_same_weights():
    """The numbers are those of the authors' code in evaluation, with weights and image drawn as here."""
    net = SkipDenseSeg(3, 2, 4).eval()
    draw = np.random.RandomState(0)
    with torch.no_grad():
        for p in net.parameters():
            drawn = torch.from_numpy(draw.standard_normal(tuple(p.shape)))
            p.copy_(drawn / p[0].numel() ** 0.5 if p.ndim > 1 else 1 + 0.1 * drawn)
        image = np.random.RandomState(1).standard_normal((1, 2, 16, 16, 32))
        logits = net(torch.from_numpy(image).float())
    inner, corner = [2.89210, -0.45630, 0.81744, -0.93132], [3.40782, 1.12209, 2.63643, -0.75627]
    torch.testing.assert_close(logits[0, :, 3, 7, 20], torch.tensor(inner), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[0, :, 15, 0, 31], torch.tensor(corner), rtol=1e-4, atol=1e-4)
    moments = torch.stack((logits.mean(), logits.std()))
    torch.testing.assert_close(moments, torch.tensor([1.39877, 1.75222]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", range(4))
def test_blocks_are_monais(index):
    torch.manual_seed(0)
    ours = SkipDenseSeg(3, 1, 2, width=8, dropout=0.0).blocks[index]
    maps = ours.units[0][0][0].num_features
    theirs = _DenseBlock(3, 4, maps, bn_size=4, growth_rate=4, dropout_prob=0.0)
    with torch.no_grad():
        for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
            assert a.shape == b.shape
            a.copy_(b)
    x = torch.randn(2, maps, 4, 5, 3)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("stride", [2, 8])
def test_up_per_class_is_a_grouped_transposed_convolution(stride):
    torch.manual_seed(0)
    ours = UpPerClass(12, 3, stride)
    theirs = nn.ConvTranspose3d(12, 3, stride + 2, stride, padding=1, groups=3, bias=False)
    theirs.weight.data = ours.weight.data
    x = torch.randn(1, 12, 2, 3, 2)
    assert ours(x).shape[2:] == tuple(stride * n for n in (2, 3, 2))
    torch.testing.assert_close(ours(x), theirs(x))


def test_maps_that_cannot_be_dealt_out_equally_each_serve_one_class():
    torch.manual_seed(0)
    up = UpPerClass(5, 2, 2)
    x = torch.randn(1, 5, 2, 2, 2, requires_grad=True)
    served = []
    for k in range(2):
        (grad,) = torch.autograd.grad(up(x)[0, k].sum(), x)
        served.append(grad[0].abs().sum((1, 2, 3)).ne(0).tolist())
    assert served == [[True, True, True, False, False], [False, False, False, True, True]]
    with pytest.raises(StudyError, match=r"6 classes cannot share 5 maps.*net\.width"):
        UpPerClass(5, 6, 2)


def test_2d_and_bad_sides_are_refused():
    with pytest.raises(StudyError, match="3D-SkipDenseSeg exists only in 3D"):
        SkipDenseSeg(2, 1, 2)
    with pytest.raises(ValueError, match="needs sides of multiples"):
        SkipDenseSeg(3, 1, 2, width=4)(torch.zeros(1, 1, 32, 32, 24))
