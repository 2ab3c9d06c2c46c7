"""Shared encoder with a head per organ, against the U-Net whose encoder and decoder it has."""

import pytest
import torch
from torch import nn

from common.nets.organ_heads import OrganHeads
from common.nets.unet import UNet


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def copied(net: OrganHeads, organ: int, classes: int, dimensions: int) -> UNet:
    """A U-Net with the weights of the encoder and of one decoder."""
    unet = UNet(dimensions, 2, classes, width=4, levels=3)
    unet.down.load_state_dict(net.down.state_dict())
    unet.up.load_state_dict(net.up[organ].state_dict())
    unet.head.load_state_dict(net.heads[organ].state_dict())
    return unet


@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_organs_logit_is_that_of_a_unet_of_its_own_with_the_same_encoder(dimensions):
    torch.manual_seed(0)
    net = OrganHeads(dimensions, 2, 4, width=4, levels=3)
    x = torch.randn(2, 2, *(13, 18, 9)[:dimensions])
    background, *organs = net(x).split(1, dim=1)
    assert not background.any()
    for organ, logit in enumerate(organs):
        torch.testing.assert_close(logit, copied(net, organ, 1, dimensions)(x))
    assert not torch.allclose(organs[0], organs[1])


def test_shared_decoder_is_a_unet_whose_background_is_0():
    torch.manual_seed(0)
    net = OrganHeads(2, 2, 4, decoders="shared", width=4, levels=3)
    x = torch.randn(2, 2, 12, 20)
    logits = net(x)
    assert not logits[:, 0].any()
    torch.testing.assert_close(logits[:, 1:], copied(net, 0, 3, 2)(x))


def test_with_one_organ_the_softmax_is_the_sigmoid_of_its_logit():
    torch.manual_seed(0)
    logits = OrganHeads(2, 1, 2, width=4, levels=2)(torch.randn(1, 1, 8, 8))
    torch.testing.assert_close(logits.softmax(1)[:, 1], logits[:, 1].sigmoid())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_parameters_are_the_unets_and_one_decoder_more_for_each_organ(dimensions):
    with torch.device("meta"):
        one, two, five = (OrganHeads(dimensions, 1, 1 + n) for n in (1, 2, 5))
        shared = OrganHeads(dimensions, 1, 6, decoders="shared")
        unet = UNet(dimensions, 1, 1, width=32, levels=4)
    assert count(one) == count(unet)
    assert count(five) - count(one) == 4 * (count(two) - count(one)) == 4 * (count(one.up) + count(one.heads))
    assert count(shared) - count(one) == 4 * (32 + 1)


def test_an_organs_loss_leaves_the_other_decoders_alone():
    torch.manual_seed(0)
    net = OrganHeads(2, 1, 3, width=4, levels=3)
    net(torch.randn(1, 1, 16, 16))[:, 2].square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in net.up[0].parameters())
    assert all(p.grad is not None for p in net.up[1].parameters())
    assert net.down[0][0].weight.grad.any()
