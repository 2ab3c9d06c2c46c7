"""What the loss of a net is on patches that are the same in every round."""

import torch
from torch import nn

from client.data.patches import Batches
from client.training import autocast
from common.study_training import Training

BATCHES = 4


@torch.no_grad()
def loss_on_first(net: nn.Module, loss_of: nn.Module, batches: Batches, settings: Training) -> float:
    """Mean loss of `net`, as it would predict, on the first batches of the site's stream of training patches.

    Nothing is learnt, no running statistic moves, and no random number is drawn.

    Args:
        net: On its device; left in training mode.
        loss_of: Maps the net's output and labels to a scalar.
        batches: The site's.
        settings: The study's training section.
    """
    device = next(net.parameters()).device
    net.eval()
    total = 0.0
    for step in range(BATCHES):
        image, label = batches.at(step)
        with autocast(settings, device):
            output = net(image.to(device))
        total += loss_of(output, label.to(device)).item()
    net.train()
    return total / BATCHES
