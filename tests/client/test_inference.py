"""Windows, padding, mirror images, precision, the way back to the own grid, post-processing, and the consensus."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.data.cache import load_meta
from client.data.volume import CachedCase
from client.inference import consensus, label_map, probabilities, segment
from common.postprocess.crf import CRF
from common.study import Study

MakeCase = Callable[..., CachedCase]
MakeStudy = Callable[..., Study]
CPU = torch.device("cpu")


def pointwise(dimensions: int, channels: int = 1, classes: int = 2, seed: int = 0) -> nn.Module:
    """A net that sees single voxels: whatever the windows, its output is known."""
    torch.manual_seed(seed)
    conv = nn.Conv3d if dimensions == 3 else nn.Conv2d
    return conv(channels, classes, 1)


def whole(net: nn.Module, image: np.ndarray) -> Tensor:
    with torch.no_grad():
        return torch.softmax(net(torch.from_numpy(image)[None])[0], dim=0)


@pytest.mark.parametrize(
    ("patch", "shape"),
    [
        ((16, 16, 16), (37, 20, 16)),  # larger: windows
        ((16, 16, 16), (40, 9, 13)),  # larger in one axis, smaller in others
        ((16, 16, 16), (16, 16, 16)),
        ((16, 16, 16), (5, 11, 16)),  # smaller: padded
        ((16, 16), (50, 33)),
        ((16, 16), (7, 16)),
    ],
)
def test_windows_and_padding_do_not_show(make_study: MakeStudy, patch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    net = pointwise(len(patch), channels=2, classes=3)
    study = make_study(patch, labels=["a", "b"], channels=["x", "y"])
    result = probabilities(net, image, study, CPU)
    torch.testing.assert_close(result, whole(net, image), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(result.sum(0), torch.ones(shape), atol=1e-5, rtol=0)


class Seen(nn.Module):
    """Remembers its inputs and its modes."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x)
        self.modes.append(self.training)
        return torch.cat([x, -x], dim=1)


def test_the_net_sees_nothing_but_patches(make_study: MakeStudy) -> None:
    net = Seen()
    probabilities(net, np.ones((1, 40, 6), np.float32), make_study((16, 16)), CPU)
    assert {tuple(x.shape[1:]) for x in net.inputs} == {(1, 16, 16)}


def test_around_a_small_image_is_its_smallest_value_as_in_training(make_case: MakeCase, make_study: MakeStudy) -> None:
    from client.data.patches import Batches

    image = np.random.default_rng(0).normal(size=(1, 5, 9)).astype(np.float32)
    net, study = Seen(), make_study((8, 16), training={"batch": 1})
    probabilities(net, image, study, CPU)
    trained, _ = Batches([make_case("a", image, np.zeros((5, 9)))], study, 1).at(0)
    assert torch.equal(net.inputs[0], trained)


def test_every_module_gets_its_mode_back(make_study: MakeStudy) -> None:
    net = nn.Sequential(Seen(), nn.BatchNorm2d(2), nn.Dropout(0.5))
    net.train()
    net[1].eval()  # a frozen part
    image = np.ones((1, 8, 8), np.float32)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    probabilities(net, image, make_study((8, 8)), CPU)
    assert [m.training for m in net] == [True, False, True]
    assert net.training
    assert net[0].modes == [False]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())

    class Failing(Seen):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    failing = Failing().train()
    with pytest.raises(RuntimeError, match="out of memory"):
        probabilities(failing, image, make_study((8, 8)), CPU)
    assert failing.training


@pytest.mark.parametrize(
    ("precision", "inner"), [("bf16", torch.bfloat16), ("auto", torch.float32), ("fp32", torch.float32)]
)
def test_precision_of_the_study(make_study: MakeStudy, precision: str, inner: torch.dtype) -> None:
    image = np.random.default_rng(0).normal(size=(1, 24, 24)).astype(np.float32)
    net = pointwise(2)
    seen: list[torch.dtype] = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    result = probabilities(net, image, make_study((16, 16), training={"precision": precision}), CPU)
    assert set(seen) == {inner}
    assert result.dtype == torch.float32
    # bfloat16 keeps 8 bits of the mantissa: logits of about 2 are rounded by up to 2^-8, probabilities by a quarter.
    torch.testing.assert_close(result, whole(net, image), atol=1e-6 if inner == torch.float32 else 2e-2, rtol=0)


def test_consensus_is_the_mean_of_the_probabilities(make_study: MakeStudy) -> None:
    image = np.random.default_rng(0).normal(size=(1, 20, 11)).astype(np.float32)
    nets = [pointwise(2, seed=s) for s in range(3)]
    study = make_study((16, 16))
    wanted = torch.stack([whole(net, image) for net in nets]).mean(0)
    torch.testing.assert_close(consensus(nets, image, study, CPU), wanted, atol=1e-6, rtol=1e-5)
    assert torch.equal(consensus(nets[:1], image, study, CPU), probabilities(nets[0], image, study, CPU))


def test_the_maximum_is_taken_on_the_own_grid(make_case: MakeCase) -> None:
    # A ramp of probability from 0 to 1 over 4 plan voxels, on an own grid twice as fine: it passes 1/2 between the
    # 4th and 5th of the 8 own voxels. Each plan voxel split in two would give the same; at 1/3 : 2/3 only
    # interpolation finds the border, which lies within a plan voxel.
    case = make_case("a", np.zeros((1, 4)), np.zeros(4), truth=np.zeros(8))
    ramp = torch.tensor([0.0, 0.4, 0.56, 1.0])
    label = label_map(torch.stack([1 - ramp, ramp]), load_meta(case))
    # Own voxels lie at plan positions -0.25, 0.25, 0.75, 1.25, ...: 0.44 at 1.25 and 0.52 at 1.75.
    assert label.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    sharper = torch.tensor([0.0, 0.48, 0.6, 1.0])  # 0.51 at 1.25: half of plan voxel 1 (0.48) belongs to the label
    assert label_map(torch.stack([1 - sharper, sharper]), load_meta(case)).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_label_map_is_the_argmax(make_case: MakeCase) -> None:
    case = make_case("a", np.zeros((1, 9, 8)), np.zeros((9, 8)))
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (5, 9, 8)).astype(np.float32))  # many are equal
    label = label_map(values, load_meta(case))
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, values.numpy().argmax(0))


def test_segment_by_a_threshold_net(make_case: MakeCase, make_study: MakeStudy) -> None:
    net = pointwise(2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))  # type: ignore[operator]
        net.bias.zero_()  # type: ignore[operator]
    image = np.random.default_rng(0).normal(size=(1, 20, 30))
    case = make_case("a", image, image[0] > 0)
    np.testing.assert_array_equal(segment([net], case, make_study((16, 16)), CPU), image[0] > 0)


@pytest.mark.parametrize("patch", [(12, 10), (8, 9, 10)])
def test_mirroring_is_the_mean_over_all_mirror_images(make_study: MakeStudy, patch: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    d = len(patch)
    net = (nn.Conv2d, nn.Conv3d)[d - 2](1, 3, 3, padding=1)
    image = np.random.default_rng(0).normal(size=(1, *patch)).astype(np.float32)
    study = make_study(patch, labels=["a", "b"], evaluation={"mirror": True})
    wanted = []
    for choice in range(2**d):
        axes = tuple(1 + axis for axis in range(d) if choice >> axis & 1)
        mirrored = np.ascontiguousarray(np.flip(image, axes))
        wanted.append(np.flip(whole(net, mirrored).numpy(), axes))
    result = probabilities(net, image, study, CPU)
    np.testing.assert_allclose(result.numpy(), np.mean(wanted, axis=0), atol=1e-6)
    once = probabilities(net, image, make_study(patch, labels=["a", "b"]), CPU)
    assert abs(result - once).max() > 1e-3


def threshold_net() -> nn.Module:
    net = pointwise(2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))  # type: ignore[operator]
        net.bias.zero_()  # type: ignore[operator]
    return net


def test_steps_on_the_label_map_see_the_own_grid(make_case: MakeCase, make_study: MakeStudy) -> None:
    image = np.full((1, 16, 16), -1.0)
    image[0, 2:8, 2:8] = image[0, 11:14, 11:14] = 1.0
    case = make_case("a", image, image[0] > 0, truth=np.zeros((32, 32)))
    plain = segment([threshold_net()], case, make_study((16, 16)), CPU)
    small = plain[20:, 20:]
    assert small.sum() > 9  # voxels of 0.25 mm^2

    def kept(step: object) -> int:
        label = segment([threshold_net()], case, make_study((16, 16), postprocess=[step]), CPU)
        np.testing.assert_array_equal(label[:20, :20], plain[:20, :20])
        return int(label[20:, 20:].sum())

    assert kept("largest_component") == 0
    area = float(small.sum()) * 0.25
    assert kept({"name": "remove_small", "volume": area}) == small.sum()
    assert kept({"name": "remove_small", "volume": area + 0.1}) == 0


def test_steps_on_probabilities_come_before_the_maximum(make_case: MakeCase, make_study: MakeStudy) -> None:
    image = np.random.default_rng(0).normal(size=(1, 12, 14)).astype(np.float32)
    case = make_case("a", image, image[0] > 0, truth=np.zeros((24, 28)))
    crf = {"name": "crf", "smoothness": 4.0, "radius": 2}
    study = make_study((16, 16), postprocess=[crf, "fill_holes"])
    net = threshold_net()
    values = CRF(smoothness=4.0, radius=2)(whole(net, image), torch.from_numpy(image), (1.0, 1.0))
    wanted = label_map(values, load_meta(case))
    without_holes = segment([net], case, study, CPU)
    assert (wanted != segment([net], case, make_study((16, 16)), CPU)).any()
    assert (without_holes >= wanted).all()
    np.testing.assert_array_equal(segment([net], case, make_study((16, 16), postprocess=[crf]), CPU), wanted)
