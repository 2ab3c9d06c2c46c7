"""Nets against published parameter counts and against MONAI's nets with the same weights."""

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, SegResNet
from torch import nn
from torch.nn import functional as F

from common.errors import StudyError
from common.losses.compound import DiceCELoss
from common.losses.deep_supervision import DeepSupervision
from common.names import NETS
from common.nets import build_net, check_patch, divisor
from common.nets.dynunet import dynunet
from common.nets.layers import mirror
from common.nets.segresnet import segresnet
from common.nets.unet import UNet, UpBlock
from common.study import Study, load_study

SMALL = {
    "dynunet": {"size": "small"},
    "unet": {"width": 4, "levels": 3},
    "segresnet": {"width": 8},
}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def study(net: object = "dynunet", patch: tuple[int, ...] = (16, 16, 16)) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": {"labels": ["a"], "dimensions": len(patch)},
            "plan": {"patch": patch},
            "training": {"steps": 1},
            "net": net,
        }
    )


# Ronneberger et al. 2015 by arithmetic; Çiçek et al. 2016 state 19,069,955 (without batch normalisation's scale
# and shift, 4,672 numbers); nnU-Net's by its own code; SegResNet's by MONAI.
@pytest.mark.parametrize(
    ("make", "arguments", "options", "parameters"),
    [
        (UNet, (2, 1, 2), {"norm": "none"}, 31_030_658),
        (UNet, (2, 1, 1), {"norm": "none"}, 31_030_593),
        (UNet, (3, 3, 3), {"flavour": "cicek", "levels": 4, "norm": "none"}, 19_069_955),
        (UNet, (3, 3, 3), {"flavour": "cicek", "levels": 4, "norm": "batch"}, 19_069_955 + 4_672),
        (dynunet, (3, 1, 2), {"size": "large", "deep_supervision": False}, 31_189_410),
        (dynunet, (3, 1, 2), {"size": "large"}, 31_190_954),
        (dynunet, (2, 1, 2), {"size": "large", "deep_supervision": False}, 46_309_474),
        (segresnet, (3, 4, 3), {}, 4_702_227),
        (segresnet, (3, 4, 3), {"width": 32}, 18_798_627),
    ],
)
def test_published_parameter_counts(make, arguments, options, parameters):
    with torch.device("meta"):
        assert count(make(*arguments, **options)) == parameters


@pytest.mark.parametrize("dimensions", [2, 3])
def test_small_is_small(dimensions):
    with torch.device("meta"):
        assert count(dynunet(dimensions, 1, 2, size="small")) < 2_000_000
        assert 5_000_000 < count(dynunet(dimensions, 1, 2, size="medium")) < 9_000_000


def monai_dynunet() -> DynUNet:
    return DynUNet(
        3, 1, 2, kernel_size=[3] * 4, strides=[1, 2, 2, 2], upsample_kernel_size=[2] * 3, filters=[8, 16, 32,
        64], deep_supervision=True, deep_supr_num=2, norm_name=("INSTANCE", {"affine": True}),
    )  # fmt: skip


def test_dynunet_is_monais_with_outputs_at_their_own_resolution():
    torch.manual_seed(3)
    theirs = monai_dynunet()
    torch.manual_seed(3)
    ours = dynunet(3, 1, 2, size="small")
    expected = dict(theirs.named_parameters())
    assert {n: p.tolist() for n, p in ours.named_parameters()} == {n: p.tolist() for n, p in expected.items()}

    x = torch.randn(2, 1, 16, 24, 16)
    full, half, quarter = ours(x)
    assert [t.shape[2:] for t in (full, half, quarter)] == [(16, 24, 16), (8, 12, 8), (4, 6, 4)]
    stacked = theirs(x)
    torch.testing.assert_close(full, stacked[:, 0])
    torch.testing.assert_close(F.interpolate(half, full.shape[2:]), stacked[:, 1])
    torch.testing.assert_close(F.interpolate(quarter, full.shape[2:]), stacked[:, 2])
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_only_the_coarsest_output_gets_no_gradient():
    """As in nnU-Net, whose coarsest output has weight 0."""
    net = dynunet(2, 1, 2, size="small")
    outputs = net(torch.randn(1, 1, 32, 32))
    DeepSupervision(DiceCELoss())(outputs, torch.zeros(1, 32, 32, dtype=torch.int64)).backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None]
    assert silent == [f"deep_supervision_heads.2.conv.conv.{n}" for n in ("weight", "bias")]


def test_dynunet_state_holds_each_tensor_once():
    net = dynunet(3, 1, 2, size="small")
    assert sum(t.numel() for t in net.state_dict().values()) == count(net)


def test_dynunet_for_thick_slices():
    net = dynunet(3, 1, 2, size="small", strides=((2, 2, 1), (2, 2, 1), (2, 2, 2)))
    assert divisor(net) == (8, 8, 2)
    # As in nnU-Net: flat kernels as long as the next step leaves the axis alone.
    kernels = [b.conv1.conv.kernel_size for b in (net.input_block, *net.downsamples, net.bottleneck)]
    assert kernels == [(3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3)]
    assert [tuple(t.shape[2:]) for t in net(torch.randn(1, 1, 16, 16, 6))] == [(16, 16, 6), (8, 8, 6), (4, 4, 6)]


def test_dynunet_whose_steps_never_halve_an_axis_still_looks_along_it():
    net = dynunet(3, 1, 2, size="small", strides=((2, 2, 1), (2, 2, 1)))
    x = torch.zeros(1, 1, 8, 8, 3)
    y = x.clone()
    y[..., 0] = torch.randn(8, 8)
    net.eval()
    assert not torch.equal(net(x)[..., 2], net(y)[..., 2])


def test_unet_equals_basic_unet_with_its_last_level():
    torch.manual_seed(0)
    theirs = BasicUNet(2, 1, 2, features=(4, 8, 16, 32, 64, 4), act="relu", norm=None).eval()
    ours = UNet(2, 1, 2, width=4, levels=5, norm="none").eval()
    # MONAI's last up-convolution keeps its channels; that of the paper halves them.
    last = ours.up[-1]
    ours.up[-1] = UpBlock(
        nn.ConvTranspose2d(8, 8, 2, 2), lambda i, m, o: nn.Sequential(
            nn.Conv2d(i, m, 3, padding=1), nn.ReLU(), nn.Conv2d(m, o, 3, padding=1), nn.ReLU()
        ), skip=4, width=4,
    )  # fmt: skip
    assert count(ours) - count(last) != count(theirs)
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert a.shape == b.shape
            a.copy_(b)
    for size in ((32, 48), (35, 41)):
        x = torch.randn(2, 1, *size)
        torch.testing.assert_close(ours(x), theirs(x))


def test_valid_unet_has_the_papers_sizes():
    with torch.device("meta"):
        net = UNet(2, 1, 2, norm="none", padding="valid")
        assert net.unpadded(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
        cicek = UNet(3, 3, 3, flavour="cicek", levels=4, norm="none", padding="valid")
        assert cicek.unpadded(torch.empty(1, 3, 132, 132, 116)).shape == (1, 3, 44, 44, 28)
    assert net.valid_sizes(388) == (572, 388)
    assert net.valid_sizes(389) == (588, 404)


def test_valid_unet_sees_what_the_padded_one_sees_away_from_the_border():
    torch.manual_seed(0)
    valid = UNet(2, 1, 2, width=4, levels=3, norm="none", padding="valid").eval()
    same = UNet(2, 1, 2, width=4, levels=3, norm="none").eval()
    same.load_state_dict(valid.state_dict())
    x = torch.randn(1, 1, 88, 88)
    assert valid.valid_sizes(88) == (128, 88)
    # 20 more on each side, from which convolutions take 2 and then 2 · 2 before the second pooling: its grid lies
    # 2 voxels beside that of the padded net.
    a, b = valid(x), same(F.pad(x, (2, 2, 2, 2)))[..., 2:-2, 2:-2]
    assert a.shape == b.shape
    inside = (..., slice(24, 64), slice(24, 64))
    torch.testing.assert_close(a[inside], b[inside])
    assert not torch.allclose(a[..., :4, :4], b[..., :4, :4])
    assert valid(torch.randn(1, 1, 9, 14)).shape == (1, 2, 9, 14)


@pytest.mark.parametrize(("n", "before", "after"), [(5, 2, 3), (4, 9, 14), (1, 2, 2), (2, 3, 0)])
def test_mirror_is_numpys(n, before, after):
    x = np.arange(2.0 * n).reshape(2, n)
    ours = mirror(torch.from_numpy(x), 1, before, after).numpy()
    np.testing.assert_array_equal(ours, np.pad(x, ((0, 0), (before, after)), mode="reflect"))


def test_segresnet_is_monais():
    torch.manual_seed(1)
    theirs = SegResNet(3, 8, 1, 2).eval()
    torch.manual_seed(1)
    ours = segresnet(3, 1, 2, width=8).eval()
    x = torch.randn(1, 1, 16, 8, 24)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_every_net_learns_with_every_parameter(name, dimensions):
    torch.manual_seed(0)
    net = NETS.get(name)(dimensions, 2, 3, **SMALL[name])
    size = (16, 32, 16)[:dimensions]
    outputs = net(torch.randn(2, 2, *size))
    heads = outputs if isinstance(outputs, list) else [outputs]
    assert heads[0].shape == (2, 3, *size)
    assert isinstance(net.eval()(torch.randn(1, 2, *size)), torch.Tensor)
    sum(h.square().mean() for h in heads).backward()
    # A bias before a normalisation is taken out again by it: its gradient is rounding error or 0.
    silent = [n for n, p in net.named_parameters() if p.grad is None or (p.ndim > 1 and not p.grad.any())]
    assert silent == []


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
@pytest.mark.parametrize("name", SMALL)
def test_norms_and_their_buffers(name, norm):
    net = NETS.get(name)(2, 1, 2, **SMALL[name], norm=norm)
    assert any(True for _ in net.buffers()) == (norm == "batch")
    kinds = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d, "group": nn.GroupNorm}
    found = {type(m) for m in net.modules()} & set(kinds.values())
    assert found == {kinds[norm]}


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_net_and_output(name):
    x = torch.randn(1, 1, 16, 16, 16)
    outputs = []
    for _ in range(2):
        torch.manual_seed(5)
        outputs.append(build_net(study({"name": name, **SMALL[name]})).eval()(x))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("training", [True, False])
def test_inputs_that_cannot_fit_are_refused(name, training):
    net = build_net(study({"name": name, **SMALL[name]})).train(training)
    steps = divisor(net)
    with pytest.raises(ValueError, match="single voxel"):
        net(torch.zeros(1, 1, *steps))
    with pytest.raises(ValueError, match="needs sides"):
        net(torch.zeros(1, 1, 64, 64, steps[2] - 1))


def test_unet_takes_odd_sides():
    net = UNet(3, 1, 2, width=4, levels=3)
    assert net(torch.randn(1, 1, 13, 17, 7)).shape == (1, 2, 13, 17, 7)


def test_patch_that_does_not_fit_is_named_with_the_nearest_that_does():
    bad = study({"name": "dynunet", "size": "small"}, patch=(43, 48, 9))
    named = r"plan.patch \[43, 48, 9\].*dynunet.*\[8, 8, 8\].*nearest is \[40, 48, 8\]"
    with pytest.raises(StudyError, match=named):
        check_patch(bad, build_net(bad))
    lone = study({"name": "dynunet", "size": "small"}, patch=(8, 8, 8))
    with pytest.raises(StudyError, match="single voxel"):
        check_patch(lone, build_net(lone))
    fits = study({"name": "dynunet", "size": "small"}, patch=(48, 48, 16))
    check_patch(fits, build_net(fits))


def test_strides_of_another_dimension_are_refused():
    with pytest.raises(StudyError, match="needs 3 numbers"):
        dynunet(3, 1, 2, strides=((2, 2), (2, 2)))


def test_unknown_size_is_an_error_that_lists_the_choices(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: s\ndata: {labels: [a]}\nplan: {patch: [16, 16, 16]}\ntraining: {steps: 1}\n"
        "net: {name: dynunet, size: tiny}\n"
    )
    with pytest.raises(StudyError, match=r"study.yaml:5: net\.size: .*'small', 'medium' or 'large'"):
        load_study(path)


def test_options_of_a_net_reach_the_digest_with_their_defaults():
    plain, spelt = study("dynunet"), study({"name": "dynunet", "size": "medium", "norm": "instance"})
    assert plain.digest() == spelt.digest()
    assert plain.digest() != study({"name": "dynunet", "size": "small"}).digest()
