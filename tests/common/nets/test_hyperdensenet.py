"""HyperDense-Net against the released configuration and against a plain loop with each path's own order of maps."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from common.errors import StudyError
from common.nets.hyperdensenet import HyperDenseNet
from common.nets.layers import crop


# Sum of all kernels of the authors' HyperDenseNet_Config.ini for T1 and T2 and four classes.
def test_weights_of_the_released_net():
    with torch.device("meta"):
        net = HyperDenseNet(3, 2, 4)
    kernels = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv3d))
    biases = [m.bias for m in net.modules() if isinstance(m, nn.Conv3d) and m.bias is not None]
    slopes = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.PReLU))
    norms = sum(p.numel() for m in net.modules() if isinstance(m, nn.BatchNorm3d) for p in m.parameters())
    assert kernels == 10_339_250
    assert [b.shape for b in biases] == [(4,)]
    # Each of the layers normalises all that it sees: per path 1 and twice 25, 50, 75, 125, 175, 225, 300, 375 maps,
    # the joined ones twice 900, then 400 and 200; the score, without slopes, 100.
    seen = 2 * (1 + 2 * (25 + 50 + 75 + 125 + 175 + 225 + 300 + 375)) + 2 * 900 + 400 + 200
    assert (slopes, norms) == (seen, 2 * (seen + 100))


def test_27_voxels_give_9_and_the_mirrored_image_its_own_size():
    with torch.device("meta"):
        net = HyperDenseNet(3, 3, 4, width=2)
        assert net.unpadded(torch.empty(1, 3, 27, 27, 35)).shape == (1, 4, 9, 9, 17)
        assert net(torch.empty(1, 3, 27, 5, 12)).shape == (1, 4, 27, 5, 12)


def in_own_order(net: HyperDenseNet, x: torch.Tensor) -> torch.Tensor:
    """As in the paper: each path concatenates, layer by layer, its own maps before those of the others."""
    maps: list[list[torch.Tensor]] = []
    paths = range(net.channels)
    for paths_of_layer in net.layers:
        new = []
        for path, layer in enumerate(paths_of_layer):
            if not maps:
                new.append(layer(x[:, path : path + 1]))
                continue
            order = [path, *(other for other in paths if other != path)]
            size = maps[-1][0].shape[2:]
            own = torch.cat([crop(level[p], size) for level in maps for p in order], dim=1)
            new.append(permuted(layer, ours_to_own(maps, order))(own))
        maps.append(new)
    size = maps[-1][0].shape[2:]
    return net.score(net.joined(torch.cat([crop(p, size) for _ in paths for level in maps for p in level], dim=1)))


def ours_to_own(maps: list[list[torch.Tensor]], order: list[int]) -> torch.Tensor:
    start, index = 0, []
    for level in maps:
        width = level[0].shape[1]
        index += [torch.arange(width) + start + p * width for p in order]
        start += width * len(level)
    return torch.cat(index)


def permuted(layer: nn.Module, index: torch.Tensor) -> nn.Module:
    layer = deepcopy(layer)
    norm, slopes, _, conv = layer
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var, slopes.weight):
        tensor.data = tensor.data[index]
    conv.weight.data = conv.weight.data[:, index]
    return layer


@pytest.mark.parametrize("channels", [2, 3])
def test_every_layer_sees_all_earlier_maps_of_all_paths_in_whatever_order(channels):
    torch.manual_seed(0)
    net = HyperDenseNet(3, channels, 2, width=2).double().eval()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
        x = torch.randn(1, channels, 21, 20, 19, dtype=torch.float64)
        torch.testing.assert_close(net.unpadded(x), in_own_order(net, x))


def test_padded_net_sees_what_the_bare_one_sees_away_from_the_border():
    torch.manual_seed(0)
    net = HyperDenseNet(3, 2, 2, width=1).eval()
    x = torch.randn(1, 2, 21, 20, 19)
    with torch.no_grad():
        torch.testing.assert_close(crop(net(x), (3, 2, 1)), net.unpadded(x), rtol=1e-4, atol=1e-5)


def test_one_channel_and_2d_are_refused():
    with pytest.raises(StudyError, match="two or more image channels"):
        HyperDenseNet(3, 1, 2)
    with pytest.raises(StudyError, match="HyperDense-Net exists only in 3D"):
        HyperDenseNet(2, 2, 2)
