"""CMR-FCN by arithmetic on the released network."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.nets.cmr_fcn import CMRFCN, _spread

WIDTHS, CONVOLUTIONS = (16, 32, 64, 128, 256), (2, 2, 3, 3, 3)


def test_parameter_count_by_arithmetic():
    convolutions = sum(9 * w * ((n - 1) * w + before) for w, n, before in zip(
        WIDTHS, CONVOLUTIONS, (1, *WIDTHS[:-1]), strict=True
    ))  # fmt: skip
    convolutions += 32 * sum(WIDTHS) + 5 * 32 * 64 + 64 * 64 + 64 * 4 + 4
    norms = 2 * (sum(w * n for w, n in zip(WIDTHS, CONVOLUTIONS, strict=True)) + 5 * 32 + 2 * 64)
    with torch.device("meta"):
        net = CMRFCN(2, 1, 4)
    assert sum(p.numel() for p in net.parameters() if p.ndim > 1) + 4 == convolutions
    assert sum(p.numel() for p in net.parameters()) == convolutions + norms == 1_985_556


def test_only_the_last_convolution_has_a_bias():
    net = CMRFCN(2, 1, 4, width=2)
    biased = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert biased == ["classifier.2"]


@pytest.mark.parametrize("step", [2, 4, 16])
def test_a_scale_is_interpolated_from_the_voxels_on_which_its_convolutions_are_centred(step):
    """A ramp that is taken at each `step`-th voxel comes back as the ramp, as far as there are voxels beyond it."""
    n = 3 * step + 2
    ramp = torch.arange(float(n)).expand(1, 1, n, n)
    back = _spread(ramp[..., ::step, ::step], step, torch.Size((n, n)))
    torch.testing.assert_close(back, ramp.clamp(max=3 * step))
    # A convolution with stride 2 and a border of 1 takes its middle weight from voxels 0, 2, 4, ...
    middle = torch.zeros(1, 1, 3, 3)
    middle[..., 1, 1] = 1
    torch.testing.assert_close(F.conv2d(ramp, middle, stride=2, padding=1), ramp[..., ::2, ::2])


def test_every_scale_enters_the_classifier_at_full_size():
    net = CMRFCN(2, 1, 3, width=2).eval()
    seen = []
    net.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    with torch.inference_mode():
        net(torch.randn(1, 1, 37, 50))
    assert seen == [(1, 5 * 4, 37, 50)]


def test_a_single_voxel_to_normalise_is_refused():
    with pytest.raises(ValueError, match="single voxel"):
        CMRFCN(2, 1, 2, width=1)(torch.randn(1, 1, 16, 16))
    assert CMRFCN(2, 1, 2, width=1, norm="none")(torch.randn(1, 1, 5, 16)).shape == (1, 2, 5, 16)
