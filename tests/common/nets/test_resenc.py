"""ResEnc against nnU-Net's own code, dynamic-network-architectures."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn

from common.errors import StudyError
from common.nets.resenc import ResEncUNet

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# nnU-Net states 102.4 M for ResEnc L; to the unit by its code.
@pytest.mark.parametrize(("dimensions", "parameters"), [(3, 102_349_770), (2, 140_017_038)])
def test_large_has_nnunets_count(dimensions, parameters):
    with torch.device("meta"):
        assert count(ResEncUNet(dimensions, 1, 2, size="large")) == parameters


def theirs(dimensions: int, widths: list[int], steps: list, kernels: list) -> ResidualEncoderUNet:
    return ResidualEncoderUNet(
        input_channels=2, n_stages=len(widths), features_per_stage=widths, conv_op=CONV[dimensions],
        kernel_sizes=kernels, strides=[(1,) * dimensions, *steps], n_blocks_per_stage=[1, 3, 4, 6, 6, 6][: len(widths)],
        num_classes=3, n_conv_per_stage_decoder=1, conv_bias=True, norm_op=NORM[dimensions],
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )  # fmt: skip


def parts(net: ResEncUNet, other: ResidualEncoderUNet) -> list[tuple[nn.Module, nn.Module]]:
    """The parts of both nets that hold the same parameters in the same order."""
    decoder, lowest = other.decoder, len(net.up) - 1
    pairs = [(net.stem, other.encoder.stem), (net.down, other.encoder.stages)]
    for level, up in enumerate(net.up):
        pairs += [(up.up, decoder.transpconvs[lowest - level]), (up.unit, decoder.stages[lowest - level])]
        pairs += [(net.heads[level], decoder.seg_layers[lowest - level])]
    return pairs


@pytest.mark.parametrize(
    ("dimensions", "widths", "steps", "kernels", "size"),
    [
        (2, [8, 16, 32, 32], [(2, 2)] * 3, [(3, 3)] * 4, (32, 48)),
        # The six levels of L, narrow.
        (3, [8, 16, 32, 32, 32, 32], [(2, 2, 2)] * 5, [(3, 3, 3)] * 6, (64, 32, 32)),
        # Thick slices, as nnU-Net plans them.
        (3, [8, 16, 32], [(2, 2, 1), (2, 2, 2)], [(3, 3, 1), (3, 3, 3), (3, 3, 3)], (16, 24, 6)),
    ],
)
def test_with_the_same_weights_all_outputs_are_nnunets(dimensions, widths, steps, kernels, size):
    torch.manual_seed(0)
    other = theirs(dimensions, widths, steps, kernels)
    ours = ResEncUNet(dimensions, 2, 3, size="small", strides=tuple(steps))
    assert count(ours) == count(other)
    with torch.no_grad():
        for mine, its in parts(ours, other):
            for a, b in zip(mine.parameters(), its.parameters(), strict=True):
                a.copy_(b.normal_(1 if b.ndim == 1 else 0, 0.1))
    x = torch.randn(2, 2, *size)
    found, expected = ours(x), other(x)
    assert len(found) == len(expected) == len(widths) - 1
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.eval()(x), expected[0], rtol=1e-4, atol=1e-5)


def test_initial_values_are_nnunets():
    """Each block first passes on its shortcut alone, convolutions are spread as He et al. say."""
    torch.manual_seed(0)
    ours, other = ResEncUNet(3, 2, 3, size="small"), theirs(3, [8, 16, 32], [(2, 2, 2)] * 2, [(3, 3, 3)] * 3)
    other.apply(other.initialize)
    for mine, its in parts(ours, other):
        for a, b in zip(mine.parameters(), its.parameters(), strict=True):
            if a.ndim == 1:
                torch.testing.assert_close(a, b)
            elif a.numel() > 5000:
                torch.testing.assert_close(a.std(), b.std(), rtol=0.05, atol=0)


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_norms_and_their_buffers(norm):
    net = ResEncUNet(2, 1, 2, size="small", norm=norm)
    assert any(True for _ in net.buffers()) == (norm == "batch")
    kinds = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d, "group": nn.GroupNorm}
    assert {type(m) for m in net.modules()} & set(kinds.values()) == {kinds[norm]}


def test_without_deep_supervision_there_is_one_output_and_one_head():
    net = ResEncUNet(2, 1, 2, size="small", deep_supervision=False)
    assert len(net.heads) == 1
    assert isinstance(net(torch.randn(1, 1, 16, 16)), torch.Tensor)


def test_strides_of_another_dimension_are_refused():
    with pytest.raises(StudyError, match="needs 3 numbers"):
        ResEncUNet(3, 1, 2, strides=((2, 2), (2, 2)))
