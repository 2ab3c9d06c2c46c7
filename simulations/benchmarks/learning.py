"""Whether every net learns: `python -m simulations.benchmarks.learning`.

Each net of the registry, at its card's `small` options, is trained on two phantom pictures or two phantom volumes,
until it knows them by heart: until the mean Dice on these very scans reaches 0.90. A net that cannot do that in some
hundred steps has bad initial weights, a bug, or too small a size. Loss, optimiser and training steps are those of a
site (`client/training.py`); every batch is all scans, unchanged, so nothing but the net decides. Seconds are processor
time of one thread, which on a machine without other work is the wall time.
"""

import common.quiet  # noqa: F401

import argparse
import functools
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from client.metrics import dice, mean
from client.training import Span, channels_last, make_optimizer, train
from common.cards import NetCard, card_of
from common.losses import build_loss
from common.names import NETS
from common.nets import build_net
from common.nets.describe import size_of
from common.seeds import derive, generator
from common.study import Study
from simulations.anatomy import ORGANS, random_patient
from simulations.scanner import EXTENT, SPACING, Scanner, scan

Dimensions = Literal[2, 3]
SIDE = {2: 64, 3: 32}
# A batch of two: with one, PyTorch's small 3D convolutions on one thread take a path that is three times slower.
CASES = 2
TARGET = 0.90
MOST_STEPS, LOOK = 400, 10
RATE = 4e-3
# Nets that need another learning rate on this task, and why.
RATES = {
    # Its context module has one channel per class: at the usual rate the ReLUs of the rarest class die in 100 steps.
    "context_net": 2e-3,
}


class Learnt(NamedTuple):
    """How the training of one net went.

    Attributes:
        net: Its name.
        dimensions: 2 or 3.
        parameters: Of the net at its small options.
        steps: Optimiser steps until the target, or the most that were allowed.
        seconds: Processor time of these steps and of the looks between them.
        dice: Training Dice at the end, mean over labels and scans.
    """

    net: str
    dimensions: Dimensions
    parameters: int
    steps: int
    seconds: float
    dice: float


def net_card(name: str) -> NetCard:
    """The card of a net."""
    card = card_of(NETS.get(name))
    if not isinstance(card, NetCard):
        raise TypeError(f"the card of net {name} is none of a net")
    return card


def study(name: str, dimensions: Dimensions, **sections: Any) -> Study:
    """The task as a study of the net `name`; `sections` replace its own."""
    card = net_card(name)
    return Study.model_validate(
        {
            "name": "learning",
            "data": {
                "labels": ORGANS,
                "channels": [f"channel-{i + 1}" for i in range(card.channels)],
                "dimensions": dimensions,
            },
            "plan": {"patch": [SIDE[dimensions]] * dimensions},
            "net": {"name": name, **card.small},
            "training": {
                "rate": RATES.get(name, RATE),
                "schedule": "constant",
                "steps": MOST_STEPS,
                "batch": CASES,
                "precision": "fp32",
            },
            **sections,
        }
    )


def phantoms(study: Study, cases: int, site: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Phantom scans of the patch's size, the same each time.

    Args:
        study: Dimensions, patch and channels; each channel is a scan of its own, with its own noise.
        cases: How many patients.
        site: Each site has other patients, and grey values on a curve of its own.

    Yields:
        Image `(C, *S)` float32, each channel of mean 0 and deviation 1, and label map `(*S)` int64.
    """
    pixels = EXTENT / study.plan.patch[0] / SPACING - 1
    by = Scanner(gamma=0.4 * site, pixel=pixels, slices=pixels)
    for number in range(cases):
        patient = random_patient(generator(study.seed, "patient", site, number))
        scans = [
            scan(patient, by, study.data.dimensions, generator(study.seed, "scan", site, number, channel))
            for channel, _ in enumerate(study.data.channels)
        ]
        image = np.stack([one.image for one in scans]).astype(np.float32)
        axes = tuple(range(1, image.ndim))
        image = (image - image.mean(axes, keepdims=True)) / image.std(axes, keepdims=True)
        shape = study.plan.patch
        label = scans[0].label.reshape(shape).astype(np.int64)
        yield torch.from_numpy(image.reshape(-1, *shape)), torch.from_numpy(label)


def learn(name: str, dimensions: Dimensions, target: float = TARGET, most: int = MOST_STEPS) -> Learnt:
    """Train the net `name` on the phantom task until its training Dice reaches `target`, or for `most` steps."""
    task = study(name, dimensions)
    image, label = map(torch.stack, zip(*phantoms(task, task.training.batch), strict=True))
    torch.manual_seed(derive(task.seed, "weights"))
    net = channels_last(build_net(task))
    loss, optimizer = build_loss(task, net), make_optimizer(net, task.training)
    start, steps, reached = time.process_time(), 0, 0.0
    while steps < most and reached < target:
        span = Span(steps, min(LOOK, most - steps), most)
        train(net, loss, optimizer, repeat((image, label), span.count), task.training, span)
        steps += span.count
        reached = training_dice(net, image, label)
    return Learnt(name, dimensions, size_of(net).parameters, steps, time.process_time() - start, reached)


def training_dice(net: nn.Module, image: Tensor, label: Tensor) -> float:
    """Mean Dice over the labels of all items of a batch, by the most probable class, in evaluation mode."""
    net.eval()
    with torch.inference_mode():
        found = net(image).argmax(1)
    pairs = zip(found.numpy().astype(np.uint8), label.numpy().astype(np.uint8), strict=True)
    return mean(value for one, truth in pairs for value in dice(one, truth, len(ORGANS))).value


def matrix(nets: Iterable[str] | None = None, dimensions: Sequence[int] = (2, 3)) -> list[tuple[str, Dimensions]]:
    """Every net with every number of dimensions that it takes, of those asked for."""
    return [(n, d) for n in nets or NETS.names() for d in (2, 3) if d in net_card(n).dimensions and d in dimensions]


def main() -> int:
    """Train, and print a Markdown table; 0 if all reach the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nets", type=lambda text: text.split(","), help="names, separated by commas; all if none")
    parser.add_argument("--dimensions", type=lambda text: [int(n) for n in text.split(",")], default=[2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    say = functools.partial(print, flush=True)
    say("| net | dimensions | parameters | steps | seconds | training Dice |\n|---|---|---|---|---|---|")
    met = True
    for name, dimensions in matrix(arguments.nets, arguments.dimensions):
        one = learn(name, dimensions)
        met &= one.dice >= TARGET
        row = (one.net, f"{one.dimensions}D", f"{one.parameters:,}", one.steps, f"{one.seconds:.1f}", f"{one.dice:.3f}")
        say(f"| {' | '.join(map(str, row))} |")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
