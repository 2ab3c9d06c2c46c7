"""Where nets live."""

import torch


def pick_device(name: str) -> torch.device:
    """The device that a site's configuration names; `auto` takes CUDA, else MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
