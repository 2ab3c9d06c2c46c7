"""V-Net against its published counts, and MONAI's V-Net against MONAI."""

import pytest
import torch
from monai.networks.nets import VNet as MonaiVNet
from torch import nn

from common.errors import StudyError
from common.nets.vnet import Stage, VNet
from common.nets.vnet_monai import vnet_monai


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def slopes(net: nn.Module) -> int:
    return sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.PReLU))


# The paper's figure by arithmetic, 65.17 M as often cited; the released `train_noPooling_ResNet_cinque.prototxt`.
@pytest.mark.parametrize(
    ("variant", "parameters", "of_which_slopes"),
    [("paper", 65_175_314, 3_456), ("caffe", 61_982_682, 3_170)],
)
def test_parameter_counts_of_the_paper_and_of_its_code(variant, parameters, of_which_slopes):
    with torch.device("meta"):
        net = VNet(3, 1, 2, variant=variant)
    assert count(net) == parameters
    assert slopes(net) == of_which_slopes


def test_released_codes_layers_by_kind():
    """Convolutions 61,545,096 and deconvolutions 434,416 numbers, counted in the prototxt."""
    with torch.device("meta"):
        net = VNet(3, 1, 2, variant="caffe")
    kinds = {
        kind: sum(p.numel() for m in net.modules() if isinstance(m, kind) for p in m.parameters())
        for kind in (nn.Conv3d, nn.ConvTranspose3d)
    }
    assert kinds == {nn.Conv3d: 61_545_096, nn.ConvTranspose3d: 434_416}


@pytest.mark.parametrize("variant", ["paper", "caffe"])
def test_convolutions_per_stage(variant):
    with torch.device("meta"):
        net = VNet(3, 1, 2, variant=variant)
    found = [
        [sum(isinstance(m, nn.Conv3d) for m in stage.modules()) for stage in side]
        for side in (net.stages, net.up_stages)
    ]
    expected = {"paper": [[1, 2, 3, 3, 3], [3, 3, 2, 1]], "caffe": [[1, 1, 2, 3, 3], [3, 2, 1, 1]]}
    assert found == expected[variant]


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_a_stage_adds_its_input_to_what_it_computes(channels):
    stage = Stage(2, channels, 8, convolutions=2, norm="none")
    for layer in stage.convolutions:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    x = torch.randn(1, channels, 5, 5)
    repeated = x[:, [c % channels for c in range(8)]]
    torch.testing.assert_close(stage(x), torch.where(repeated > 0, repeated, 0.25 * repeated))


@pytest.mark.parametrize("levels", [2, 4, 5])
def test_any_depth_halves_as_often_as_it_says(levels):
    net = VNet(2, 1, 2, width=1, levels=levels).eval()
    n = 2 ** (levels - 1)
    assert net.divisor == (n, n)
    with torch.inference_mode():
        assert net(torch.zeros(1, 1, n, 3 * n)).shape == (1, 2, n, 3 * n)
        with pytest.raises(ValueError, match="the net needs sides of multiples"):
            net(torch.zeros(1, 1, n, 3 * n + 1))


def test_vnet_monai_has_monais_count():
    with torch.device("meta"):
        assert count(vnet_monai(3, 1, 2)) == count(MonaiVNet(3, 1, 2)) == 45_597_898


# In 2D MONAI's dropout takes whole images, so that only its evaluation can be compared.
@pytest.mark.parametrize(("dimensions", "training"), [(2, False), (3, True)])
def test_vnet_monai_is_monais(dimensions, training):
    torch.manual_seed(3)
    ours = vnet_monai(dimensions, 2, 3)
    torch.manual_seed(3)
    theirs = MonaiVNet(dimensions, 2, 3)
    assert dict(ours.named_parameters()).keys() == dict(theirs.named_parameters()).keys()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    x = torch.randn(1, 2, 32, 16, 16) if training else torch.randn(1, 2, 32, 16)
    outputs = []
    with torch.inference_mode():
        for net in (ours, theirs):
            torch.manual_seed(4)
            outputs.append(net.train(training)(x))
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_vnet_monai_refuses_a_width_that_its_image_cannot_be_repeated_to():
    with pytest.raises(StudyError, match="no multiple of; the next that is is 18"):
        vnet_monai(3, 3, 2)
