"""The nets' benchmark compares the same nets, and counts as PyTorch does."""

import json

import pytest
import torch
from torch import nn

from common.nets.describe import saved_for_backward
from simulations.benchmarks import nets
from simulations.benchmarks.counterparts import PAIRS
from simulations.benchmarks.nets import MODES, Cost, Runner, met

SAME = [name for name, pair in PAIRS.items() if pair.same]


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", SAME)
def test_the_same_net_has_as_many_parameters(name: str) -> None:
    pair = PAIRS[name]
    ours, other = pair.make(pair.cpu.dimensions, pair.cpu.width)
    # EfficientNet's classifier and the convolution before it, which no segmentation uses, are not in ours.
    unused = [p.numel() for n, p in other.named_parameters() if n.startswith(("encoder._conv_head", "encoder._bn1",
              "encoder._fc"))]  # fmt: skip
    assert count(ours) == count(other) - sum(unused)
    assert bool(unused) == (name == "flexibleunet")


def test_saved_bytes_of_a_net_by_hand() -> None:
    """A convolution saves its input, a ReLU its output, a square its input; weights do not count."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    image = torch.randn(2, 1, 8, 8)
    assert saved_for_backward(net, lambda: net(image).square().sum()) == 4 * (2 * 64 + 4 * 2 * 64)


def test_multiplications_of_a_convolution_by_hand() -> None:
    setting = PAIRS["unet"].cpu
    runner = Runner(nn.Conv3d(1, 4, 3, padding=1), setting, MODES["fp32"], torch.device("cpu"))
    assert runner.multiplications() == nets.BATCH * setting.side**3 * 4 * 27


def test_only_the_same_nets_are_held_to_the_target() -> None:
    one, slower = Cost(1, 1, 1.0, 100), Cost(1, 1, 1.2, 100)
    assert met([("dynunet", one, slower), ("unet", slower, one)])
    assert not met([("dynunet", slower, one)])
    assert not met([("dynunet", Cost(1, 1, 1.0, 111), one)])


@pytest.mark.parametrize("mode", ["fp32", "bf16+last"])
def test_the_command_prints_json(mode: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["nets", "--nets", "swinunetr", "--repeats", "1", "--json", "--modes", mode])
    nets.main()
    found = json.loads(capsys.readouterr().out)
    (entry,) = found["nets"]
    assert (entry["net"], entry["mode"]) == ("swinunetr", mode)
    assert entry["ours"]["parameters"] == entry["other"]["parameters"] > 1_000_000
    assert entry["ratio"] == entry["ours"]["seconds"] / entry["other"]["seconds"]
