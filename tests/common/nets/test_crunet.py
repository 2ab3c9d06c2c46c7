"""CRU-Net: the residual U-Net and the field, together."""

import torch

from common.nets.crunet import CRUNet
from common.nets.mean_field import mean_field
from common.nets.residual_unet import residual_unet

SMALL = {"width": 4, "levels": 3, "radius": 2, "iterations": 3}


def test_the_field_adds_two_weights_per_class_and_a_cost_per_pair():
    with torch.device("meta"):
        bare, whole = (sum(p.numel() for p in m.parameters()) for m in (residual_unet(2, 1, 4), CRUNet(2, 1, 4)))
    assert whole == bare + 2 * 4 + 4 * 4


def test_it_is_the_field_of_the_nets_logits_over_the_image():
    torch.manual_seed(0)
    net = CRUNet(2, 2, 3, **SMALL).eval()
    x = torch.randn(2, 2, 13, 16)
    expected = mean_field(
        net.net(x), x, iterations=3, radius=2, smoothness=0.5, appearance=0.5, sigma_smooth=3.0, sigma_space=5.0,
        sigma_image=0.5,
    )  # fmt: skip
    torch.testing.assert_close(net(x), expected)


def test_without_weights_the_field_says_nothing():
    torch.manual_seed(1)
    net = CRUNet(3, 1, 2, **SMALL).eval()
    torch.nn.init.zeros_(net.crf.smoothness)
    torch.nn.init.zeros_(net.crf.appearance)
    x = torch.randn(1, 1, 8, 9, 12)
    torch.testing.assert_close(net(x), net.net(x))


def test_net_and_field_learn_together():
    torch.manual_seed(2)
    net = CRUNet(2, 1, 2, **SMALL)
    target = torch.zeros(2, 16, 16, dtype=torch.int64)
    target[:, 4:12, 4:12] = 1
    x = target[:, None] + 0.5 * torch.randn(2, 1, 16, 16)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    before = {n: p.detach().clone() for n, p in net.crf.named_parameters()}
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(not torch.equal(p, before[n]) for n, p in net.crf.named_parameters())
