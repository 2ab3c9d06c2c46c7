"""LungNet by arithmetic, and its way of normalising."""

import pytest
import torch
from torch import nn

from common.nets.lungnet import AddedNorm, LungNet


@pytest.mark.parametrize(("channels", "classes", "convolutions", "norms"), [(1, 6, 129_094, 962), (3, 7, 129_959, 966)])
def test_parameter_count(channels, classes, convolutions, norms):
    with torch.device("meta"):
        net = LungNet(2, channels, classes)
    assert sum(p.numel() for m in net.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()) == convolutions
    assert sum(p.numel() for p in net.parameters()) == convolutions + norms


def test_dilations_are_fibonaccis_and_the_classifier_sees_every_layer():
    net = LungNet(2, 2, 3, width=4)
    dilations = [layer[0].dilation[0] for layer in net.layers]
    assert dilations[:2] == [1, 1]
    assert all(c == a + b for a, b, c in zip(dilations[1:], dilations[2:], dilations[3:], strict=False))
    assert dilations[2:] == [2, 3, 5, 8, 13, 21, 34, 55]
    assert net.classifier[0][0].in_channels == 2 + 10 * 4


def test_at_one_image_instance_norm_is_the_papers_norm_of_each_batch():
    """Its normalisation of a batch by itself, also in evaluation, is PyTorch's batch normalisation in training mode."""
    torch.manual_seed(0)
    ours = LungNet(2, 1, 3, width=4, dropout=0.0)
    paper = LungNet(2, 1, 3, width=4, dropout=0.0, norm="batch")
    paper.load_state_dict(ours.state_dict(), strict=False)
    x = torch.randn(1, 1, 24, 30)
    torch.testing.assert_close(ours.eval()(x), paper.train()(x), rtol=1e-4, atol=1e-4)


def test_norm_is_added_to_its_own_input():
    x = torch.randn(2, 3, 8, 8)
    expected = x + nn.functional.instance_norm(x)
    torch.testing.assert_close(AddedNorm(2, 3, "instance")(x), expected)
    assert AddedNorm(2, 3, "none")(x) is x
