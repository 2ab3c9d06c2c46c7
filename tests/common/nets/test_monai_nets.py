"""Swin UNETR, MedNeXt and FlexibleUNet: MONAI's nets but for what their files name, and the counts of their papers."""

import pytest
import torch
from monai.networks.nets import FlexibleUNet, MedNeXt, SwinUNETR
from torch import nn

from common.nets.flexibleunet import flexibleunet
from common.nets.mednext import mednext
from common.nets.swinunetr import swinunetr


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# The paper's own code (create_mednext_v1 with 1 channel, 3 classes, deep supervision) counts 5,553,840, 10,529,232,
# 17,551,888 and 61,782,192, in each one number that only gradient checkpointing needs.
@pytest.mark.parametrize(
    ("size", "parameters"), [("S", 5_553_840), ("B", 10_529_232), ("M", 17_551_888), ("L", 61_782_192)]
)
def test_mednext_has_the_papers_counts(size, parameters):
    with torch.device("meta"):
        assert count(mednext(3, 1, 3, size=size)) == parameters - 1
        assert count(mednext(3, 1, 3, size=size, kernel=5)) > parameters


@pytest.mark.parametrize("dimensions", [2, 3])
def test_mednext_s_is_monais(dimensions):
    torch.manual_seed(0)
    theirs = MedNeXt(dimensions, 4, 1, 3, kernel_size=5, deep_supervision=True, use_residual_connection=True)
    torch.manual_seed(0)
    ours = mednext(dimensions, 1, 3, kernel=5, width=4)
    x = torch.randn(1, 1, *(32, 16, 16)[:dimensions])
    for a, b in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_mednext_halves_with_the_expansion_of_the_level_it_leads_to():
    """As in the paper's code; MONAI takes that of the level it comes from."""
    net = mednext(3, 1, 2, size="L", width=4)
    assert [d.conv2.out_channels // d.conv2.in_channels for d in net.down_blocks] == [4, 8, 8, 8]
    assert [u.conv2.out_channels // u.conv2.in_channels for u in net.up_blocks] == [8, 8, 4, 3]


def test_swinunetr_has_monais_count():
    """Width 48 from 4 channels to 3 classes, known in the literature as 62.19 M."""
    assert count(swinunetr(3, 4, 3, width=48)) == 62_191_941


@pytest.mark.parametrize(("dimensions", "size"), [(2, (64, 96)), (3, (64, 32, 32))])
def test_swinunetr_is_monais(dimensions, size):
    torch.manual_seed(0)
    theirs = SwinUNETR(2, 3, feature_size=12, spatial_dims=dimensions).eval()
    torch.manual_seed(0)
    ours = swinunetr(dimensions, 2, 3, width=12).eval()
    x = torch.randn(1, 2, *size)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))


def test_swinunetr_keeps_its_table_of_positions_out_of_the_state():
    net = swinunetr(2, 1, 2, width=12)
    assert {t.dtype for t in net.state_dict().values()} == {torch.float32}
    assert sum(t.numel() for t in net.state_dict().values()) == count(net)


def test_swinunetr_without_memory_leaves_the_random_numbers_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    with torch.device("meta"):
        net = swinunetr(2, 1, 2, width=12)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {t.device.type for t in [*net.parameters(), *net.buffers()]} == {"meta"}


def test_swinunetr_refuses_to_normalise_a_single_voxel():
    with pytest.raises(ValueError, match="single voxel"):
        swinunetr(2, 1, 2, width=12)(torch.randn(1, 1, 32, 32))
    assert swinunetr(2, 1, 2, width=12, norm="group")(torch.randn(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_flexibleunet_b4_has_monais_count_without_the_classifier():
    """MONAI: 21,446,098 parameters and 127,290 buffers; 2,599,400 and 3,585 of them come after the last features."""
    with torch.device("meta"):
        net = flexibleunet(2, 3, 2, backbone="b4")
    assert count(net) == 21_446_098 - 2_599_400
    assert sum(b.numel() for b in net.buffers()) == 127_290 - 3_585


@pytest.mark.parametrize("backbone", ["b0", "b1"])
def test_flexibleunet_with_the_same_weights_is_monais(backbone):
    torch.manual_seed(0)
    theirs = FlexibleUNet(2, 3, f"efficientnet-{backbone}").eval()
    ours = flexibleunet(2, 2, 3, backbone=backbone).eval()
    unused = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert unused.missing_keys == []
    assert {key.split(".")[1] for key in unused.unexpected_keys} == {"_conv_head", "_bn1", "_fc"}
    x = torch.randn(1, 2, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("backbone", ["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"])
def test_flexibleunet_takes_multiples_of_32_with_every_backbone(backbone):
    with torch.device("meta"):
        net = flexibleunet(3, 1, 2, backbone=backbone, width=0.25)
        assert net(torch.empty(2, 1, 32, 64, 96)).shape == (2, 2, 32, 64, 96)
        with pytest.raises(ValueError, match="multiples of"):
            net(torch.empty(2, 1, 48, 64, 96))


def test_flexibleunet_exchanges_every_batch_normalisation():
    net = flexibleunet(2, 1, 2, width=0.25, norm="group")
    assert list(net.buffers()) == []
    assert sum(isinstance(m, nn.GroupNorm) for m in net.modules()) == sum(
        isinstance(m, nn.BatchNorm2d) for m in flexibleunet(2, 1, 2, width=0.25).modules()
    )


def test_flexibleunet_skips_blocks_in_training_only_as_often_as_asked():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 32, 32)
    net = flexibleunet(2, 1, 2, width=0.25, norm="group", drop=0.9)
    assert any(not torch.equal(net(x), net(x)) for _ in range(3))
    steady = flexibleunet(2, 1, 2, width=0.25, norm="group", drop=0)
    assert torch.equal(steady(x), steady(x))
