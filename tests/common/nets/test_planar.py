"""Planar against its 2D net run slice by slice in plain loops, and votes counted by hand."""

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from common.documents import Document
from common.errors import StudyError
from common.losses import build_loss
from common.losses.compound import DiceCELoss
from common.losses.deep_supervision import DeepSupervision
from common.nets import build_net, check_patch, divisor
from common.nets.planar import Planar, fuse, stacked
from common.nets.unet import UNet
from common.study import Study, study_of
from common.study_explain import facts, words
from common.study_schema import DRAFT, study_schema

SMALL = {"name": "unet", "width": 4, "levels": 2}
AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}

BASE = "name: s\ndata: {labels: [a]}\nplan: {patch: [32, 32, 32]}\ntraining: {steps: 1}\nnet:\n  name: planar\n"


def read(net: str) -> Study:
    return study_of(Document(Path("s.yaml"), BASE + net))


def slice_by_slice(net: torch.nn.Module, x: torch.Tensor, axis: int, reach: int) -> torch.Tensor:
    """Logits of `net` for each slice of `x` with its neighbours, its ends repeated by NumPy."""
    widths = [(reach, reach) if a == axis + 2 else (0, 0) for a in range(5)]
    padded = torch.from_numpy(np.pad(x.numpy(), widths, mode="edge"))
    found = []
    for i in range(x.shape[axis + 2]):
        near = [padded.select(axis + 2, i + offset) for offset in range(2 * reach + 1)]
        found.append(net(torch.cat(near, dim=1)))
    return torch.stack(found, dim=axis + 2)


@pytest.mark.parametrize("stack", [1, 3, 5])
@pytest.mark.parametrize("plane", AXIS)
def test_one_plane_is_its_net_slice_by_slice(plane, stack):
    torch.manual_seed(0)
    net = Planar(3, 2, 3, net=SMALL, planes=(plane,), stack=stack)
    x = torch.randn(2, 2, 8, 10, 6)
    with torch.inference_mode():
        expected = slice_by_slice(net.net, x, AXIS[plane], stack // 2)
        (logits,) = net.train()(x)
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(net.eval()(x), expected.log_softmax(1), rtol=1e-4, atol=1e-5)


def test_mean_of_three_planes():
    torch.manual_seed(0)
    net = Planar(3, 1, 3, net=SMALL).eval()
    x = torch.randn(1, 1, 8, 10, 6)
    with torch.inference_mode():
        each = [slice_by_slice(net.net, x, axis, 0).softmax(1) for axis in AXIS.values()]
        torch.testing.assert_close(net(x).exp(), sum(each) / 3, rtol=1e-4, atol=1e-5)


def test_majority_of_three_planes_is_the_mode_of_their_labels():
    torch.manual_seed(0)
    net = Planar(3, 1, 2, net=SMALL, vote="majority").eval()
    x = torch.randn(1, 1, 8, 10, 6)
    with torch.inference_mode():
        votes = sum(slice_by_slice(net.net, x, axis, 0).argmax(1) for axis in AXIS.values())
        found = net(x)
    assert 0 < (votes >= 2).float().mean() < 1
    assert torch.equal(found.argmax(1), (votes >= 2).long())
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1, 8, 10, 6))


def one_voxel(*probabilities: tuple[float, ...]) -> list[torch.Tensor]:
    return [torch.tensor(p).log().reshape(1, -1, 1) for p in probabilities]


def test_votes_by_hand():
    # Two planes vote for class 1, one is certain of class 0; of the mean, class 0 has more.
    planes = one_voxel((0.4, 0.6, 0.0), (0.4, 0.6, 0.0), (1.0, 0.0, 0.0))
    torch.testing.assert_close(fuse(planes, "mean").exp().flatten(), torch.tensor([0.6, 0.4, 0.0]))
    torch.testing.assert_close(fuse(planes, "majority").exp().flatten(), torch.tensor([1.6, 2.4, 0.0]) / 4)
    # Three votes for three classes: the mean decides.
    planes = one_voxel((0.5, 0.3, 0.2), (0.3, 0.4, 0.3), (0.1, 0.3, 0.6))
    torch.testing.assert_close(
        fuse(planes, "majority").exp().flatten(), torch.tensor([1.3, 1 + 1 / 3, 1 + 1.1 / 3]) / 4
    )
    assert fuse(planes, "majority").argmax() == 2


def test_certain_planes_give_finite_logits():
    planes = [torch.tensor([[1e4], [-1e4]]).T.unsqueeze(-1).log_softmax(1)] * 3
    for vote in ("mean", "majority"):
        assert fuse(planes, vote).isfinite().all()


def test_stacked_slices_stand_lowest_first():
    x = torch.arange(4.0).reshape(1, 1, 1, 1, 4)
    assert stacked(x, 4, 3)[0, :, 0, 0].tolist() == [[0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3]]


def test_planes_share_one_net_and_its_size():
    one = UNet(2, 3, 2, width=4, levels=2)
    net = Planar(3, 1, 2, net=SMALL, stack=3)
    assert [p.shape for p in net.parameters()] == [p.shape for p in one.parameters()]


@pytest.mark.parametrize(
    ("inner", "planes", "weights"),
    [
        (SMALL, ("axial",), (1.0,)),
        (SMALL, ("axial", "coronal", "sagittal"), (1 / 3,) * 3),
        # nnU-Net's weights of four outputs are 4/7, 2/7, 1/7 and 0.
        ({"name": "dynunet", "size": "small"}, ("axial", "sagittal"), (4 / 14, 2 / 14, 1 / 14, 0.0) * 2),
    ],
)
def test_every_plane_weighs_the_same(inner, planes, weights):
    torch.manual_seed(0)
    net = Planar(3, 1, 2, net=inner, planes=planes)
    assert net.head_weights == pytest.approx(weights)
    x, target = torch.randn(1, 1, 32, 32, 32), torch.randint(0, 2, (1, 32, 32, 32))
    loss = DiceCELoss()
    each = [DeepSupervision(loss)(net.outputs(x, plane), target) for plane in planes]
    found = DeepSupervision(loss, net.head_weights)(net(x), target)
    torch.testing.assert_close(found, sum(each) / len(planes))


def test_the_studys_loss_takes_the_weights_of_the_planes():
    study = read("  net: {name: unet, width: 4, levels: 2}\n")
    assert build_loss(study, build_net(study)).weights == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("planes", "expected"),
    [(("axial",), (8, 4, 1)), (("coronal",), (8, 1, 4)), (("sagittal",), (1, 8, 4)), (tuple(AXIS), (8, 8, 4))],
)
def test_divisor_of_a_volume_is_that_of_the_planes_it_lies_in(planes, expected):
    net = Planar(3, 1, 2, net={"name": "dynunet", "size": "small", "strides": ((2, 2), (2, 2), (2, 1))}, planes=planes)
    assert divisor(net) == expected


def test_pictures_are_refused():
    with pytest.raises(StudyError, match="exists only in 3D"):
        Planar(2, 1, 2)


def test_thin_volumes_need_no_more_slices_than_they_have():
    study = Study.model_validate(
        {
            "name": "s", "data": {"labels": ["a"]}, "plan": {"patch": [32, 32, 9]}, "training": {"steps": 1},
            "net": {"name": "planar", "net": {"name": "dynunet", "size": "small"}, "planes": ["axial"], "stack": 3},
        }
    )  # fmt: skip
    net = build_net(study).eval()
    check_patch(study, net)
    assert net(torch.randn(1, 1, 32, 32, 9)).shape == (1, 2, 32, 32, 9)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("  net: unett\n", r"s\.yaml:7: net\.net: unknown net 'unett'\. Did you mean 'unet'\? Known: "),
        ("  net: {name: unett}\n", r"s\.yaml:7: net\.net\.name: unknown net 'unett'"),
        ("  net:\n    name: unet\n    widht: 8\n", r"s\.yaml:9: net\.net\.widht: unknown key\. Did you mean 'width'\?"),
        ("  net:\n    name: unet\n    width: 3\n", r"s\.yaml:9: net\.net\.width: 3 is not a multiple of 2"),
        ("  net: {name: planar}\n", r"s\.yaml:7: net\.net\.name: net planar exists only in 3D"),
        ("  net: {width: 8}\n", r"s\.yaml:7: net\.net\.name: this key is required"),
        ("  planes: [axial, axial]\n", r"s\.yaml:7: net\.planes: each plane may stand once"),
        ("  planes: [axail]\n", r"s\.yaml:7: net\.planes\.0: 'axail' is not one of .* Did you mean 'axial'\?$"),
        ("  planes: []\n", r"s\.yaml:7: net\.planes: name at least one plane"),
    ],
)
def test_mistakes_in_the_net_within_are_named_at_their_place(net, message):
    with pytest.raises(StudyError, match=message):
        read(net)


def test_equal_studies_have_equal_digests():
    plain = read("")
    assert read("  net: unet\n").digest() == plain.digest()
    assert read("  planes: [sagittal, axial, coronal]\n").digest() == plain.digest()
    assert read("  net: {name: unet, width: 64, norm: instance}\n").digest() == plain.digest()
    assert read("  net: {name: unet, width: 32}\n").digest() != plain.digest()
    assert Study.model_validate_json(plain.canonical()).digest() == plain.digest()


@pytest.mark.parametrize(
    ("net", "right"),
    [
        ({"net": "unet"}, True),
        ({"net": {"name": "unet", "width": 8}}, True),
        ({"net": {"name": "unet", "widht": 8}}, False),
        ({"net": "unett"}, False),
        ({"planes": ["axail"]}, False),
    ],
    ids=str,
)
def test_schema_knows_the_net_within(net: dict[str, Any], right: bool):
    written = {"name": "t", "data": {"labels": ["a"]}, "plan": {"patch": [32, 32, 32]}, "training": {"steps": 1}}
    schema = study_schema()
    assert schema["$schema"] == DRAFT
    assert jsonschema.Draft202012Validator(schema).is_valid({**written, "net": {"name": "planar", **net}}) is right


def test_the_net_within_is_explained():
    study = read("  net: {name: unet, width: 8}\n  vote: majority\n")
    printed = words(study, facts(study))
    assert "net  planar: 2.5D" in printed
    assert "2D net  unet: The original U-Net" in printed
    assert "width: 8  (Channels of the first level" in printed
