"""HighResNet against MONAI's, whose last ReLU it leaves out."""

import pytest
import torch
from monai.networks.nets import HighResNet
from torch import nn

from common.nets.highresnet import highresnet


def test_parameter_count_is_monais():
    """Li et al. 2017 state 0.81 M for 160 classes."""
    with torch.device("meta"):
        ours, theirs = highresnet(3, 1, 160), HighResNet(3, 1, 160)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 821_904


@pytest.mark.parametrize("training", [True, False])
def test_output_is_monais_before_its_last_relu(training):
    torch.manual_seed(0)
    ours = highresnet(3, 1, 4).train(training)
    torch.manual_seed(0)
    theirs = HighResNet(3, 1, 4).train(training)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(1, 1, 9, 12, 10)
    with torch.inference_mode():
        logits = ours(x)
        torch.testing.assert_close(logits.relu(), theirs(x), rtol=0, atol=0)
    assert (logits < 0).any()


def test_dilations_are_1_2_4_in_three_groups():
    net = highresnet(2, 1, 2, width=2)
    wide = [m.dilation[0] for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert wide == [1] + [1] * 6 + [2] * 6 + [4] * 6


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
def test_only_batch_normalises_the_logits(norm):
    torch.manual_seed(0)
    net = highresnet(2, 1, 2, width=4, norm=norm).eval()
    assert not list(net.buffers())
    with torch.no_grad():
        net.blocks[-1].bias += torch.tensor([0.0, 5.0])
        shares = net(torch.randn(1, 1, 16, 16)).mean(dim=(0, 2, 3))
    assert shares[1] - shares[0] > 2, "an image may be all of one class"


def test_dropout_takes_features_never_logits():
    net = highresnet(2, 1, 2, width=4, dropout=0.5)
    assert [name for name, m in net.named_modules() if isinstance(m, nn.Dropout)] == ["blocks.10.adn.D"]
