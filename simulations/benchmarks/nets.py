"""What our nets cost beside the same nets elsewhere: `python -m simulations.benchmarks.nets`.

Timed is one forward and one backward pass in training mode, the sum over the outputs of their mean squares as loss;
ours and the other one (`counterparts.py`) by turns, medians of some repeats. On the CPU, small nets in one thread,
seconds are processor time, so that a machine's other work does not count; on CUDA they are wall time between
synchronisations, and there are columns for mixed precision (bf16), channels-last and `torch.compile`.

Memory on the CPU is what autograd saves for the backward pass, each storage once, weights left out: the resident memory
of a process depends on what ran before in it. On CUDA it is the most that PyTorch had allocated during the two passes
beyond what it held before. Multiplications are those of the forward pass, two floating point operations each; they say
how far two nets that are not the same are from doing the same work.
"""

import common.quiet  # noqa: F401

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from client.training import channels_last
from common.nets.describe import saved_for_backward, size_of
from simulations.benchmarks.counterparts import CHANNELS, PAIRS, Setting

BATCH = 2
REPEATS = {"cpu": 5, "cuda": 20}
TARGET = 1.1
HEAD = ("net", "beside", "input", "mode", "parameters", "multiplications", "seconds", "ratio", "MB saved", "ratio")


class Mode(NamedTuple):
    """How a net is run."""

    mixed: bool
    last: bool
    compiled: bool


MODES = {
    "fp32": Mode(False, False, False),
    "bf16": Mode(True, False, False),
    "bf16+last": Mode(True, True, False),
    "bf16+last+compile": Mode(True, True, True),
}


class Cost(NamedTuple):
    """What one net costs.

    Attributes:
        parameters: Numbers that are learnt.
        multiplications: Of one forward pass.
        seconds: Median time of a forward and a backward pass.
        bytes: Memory of the two passes, see the module's head.
    """

    parameters: int
    multiplications: int
    seconds: float
    bytes: int


class Runner:
    """One net on its device, ready to be timed.

    Args:
        net: On the CPU.
        setting: Size of the input.
        mode: How it is run.
        device: Where it runs.
    """

    def __init__(self, net: nn.Module, setting: Setting, mode: Mode, device: torch.device) -> None:
        self.net = net.to(device).train()
        self.mode, self.device = mode, device
        self.image = torch.randn(BATCH, CHANNELS, *[setting.side] * setting.dimensions, device=device)
        if mode.last:
            channels_last(self.net)
            layout = torch.channels_last_3d if setting.dimensions == 3 else torch.channels_last
            self.image = self.image.contiguous(memory_format=layout)
        self.run: Any = torch.compile(self.net) if mode.compiled else self.net

    def forward(self) -> Tensor:
        """The loss."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self.mode.mixed else nullcontext():
            outputs = self.run(self.image)
        heads = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return torch.stack([head.float().square().mean() for head in heads]).sum()

    def step(self) -> float:
        """Seconds of a forward and a backward pass."""
        self.net.zero_grad(set_to_none=True)
        start = self._clock()
        torch.autograd.backward(self.forward())
        return self._clock() - start

    def multiplications(self) -> int:
        """Of one forward pass."""
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            self.net(self.image)
        return int(counter.get_total_flops()) // 2

    def memory(self) -> int:
        """Bytes: saved for the backward pass on the CPU, the peak of both passes on CUDA."""
        if self.device.type == "cpu":
            return saved_for_backward(self.net, self.forward)
        self.net.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step()
        return torch.cuda.max_memory_allocated() - before

    def _clock(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def compare(name: str, mode: Mode, device: torch.device, repeats: int) -> tuple[Cost, Cost]:
    """Costs of our net and of its counterpart; raises ModuleNotFoundError if that is not installed."""
    pair = PAIRS[name]
    setting = pair.cpu if device.type == "cpu" else pair.cuda
    torch.manual_seed(0)
    runners = [Runner(net, setting, mode, device) for net in pair.make(setting.dimensions, setting.width)]
    seconds: list[list[float]] = [[], []]
    for repeat in range(-1, repeats):
        # The first turn, in which kernels are chosen or compiled, does not count; who begins alternates.
        for i in (0, 1) if repeat % 2 else (1, 0):
            spent = runners[i].step()
            seconds[i] += [spent] if repeat >= 0 else []
    ours, other = (
        Cost(size_of(r.net).parameters, r.multiplications(), statistics.median(times), r.memory())
        for r, times in zip(runners, seconds, strict=True)
    )
    return ours, other


def row(name: str, mode: str, setting: Setting, ours: Cost, other: Cost) -> str:
    """A line of the table, `ours / other` where both are shown."""
    pair = PAIRS[name]
    cells = (
        name,
        pair.other if pair.same else f"({pair.other})",
        "×".join([str(setting.side)] * setting.dimensions),
        mode,
        f"{ours.parameters / 1e6:.2f} M / {other.parameters / 1e6:.2f} M",
        f"{ours.multiplications / 1e9:.3f} G / {other.multiplications / 1e9:.3f} G",
        f"{ours.seconds:.4f} / {other.seconds:.4f}",
        f"{ours.seconds / other.seconds:.2f}",
        f"{ours.bytes / 1e6:.1f} / {other.bytes / 1e6:.1f}",
        f"{ours.bytes / other.bytes:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def met(results: Sequence[tuple[str, Cost, Cost]]) -> bool:
    """Whether no net is slower or larger than the same net elsewhere by more than the target."""
    pairs = [(ours, other) for name, ours, other in results if PAIRS[name].same]
    return all(a.seconds <= TARGET * b.seconds and a.bytes <= TARGET * b.bytes for a, b in pairs)


def main() -> int:
    """Measure and print a Markdown table or JSON; 0 if the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nets", type=lambda text: text.split(","), default=list(PAIRS), help="separated by commas")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--modes", type=lambda text: text.split(","), help=", ".join(MODES))
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    modes = arguments.modes or (["fp32"] if device.type == "cpu" else list(MODES))
    results: list[tuple[str, Cost, Cost]] = []
    shown: list[dict[str, Any]] = []
    if not arguments.json:
        print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    for name in arguments.nets:
        setting = getattr(PAIRS[name], device.type)
        for mode in modes:
            try:
                ours, other = compare(name, MODES[mode], device, arguments.repeats or REPEATS[device.type])
            except ModuleNotFoundError as error:
                print(f"{name}: {error}", file=sys.stderr)
                break
            results.append((name, ours, other))
            shown.append({"net": name, "mode": mode, "same": PAIRS[name].same, "side": setting.side,
                          "dimensions": setting.dimensions, "ours": ours._asdict(), "other": other._asdict(),
                          "ratio": ours.seconds / other.seconds, "memory_ratio": ours.bytes / other.bytes})  # fmt: skip
            if not arguments.json:
                print(row(name, mode, setting, ours, other), flush=True)
    if arguments.json:
        print(json.dumps({"device": device.type, "nets": shown, "target_met": met(results)}, indent=1))
    return 0 if met(results) else 1


if __name__ == "__main__":
    sys.exit(main())
