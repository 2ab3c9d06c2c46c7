"""What a site keeps of a run between rounds: optimiser moments, local buffers.

A round's state is staged beside its reply and becomes the one to go on from only when a later message says that the
reply was counted. A lost reply, or a task that is done twice, therefore never puts the site ahead of the coordinator.
"""

import os
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


class SiteState:
    """The kept state of one run at one site.

    Args:
        folder: The run's folder in the site's home.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}.safetensors"

    def load(self, acknowledged: int) -> dict[str, Tensor]:
        """The state staged in the round `acknowledged`; empty at the start of a run. Older states are removed."""
        for path in self._folder.glob("round-*.safetensors"):
            if int(path.stem.removeprefix("round-")) < acknowledged:
                path.unlink()
        path = self._path(acknowledged)
        return load_file(path) if acknowledged and path.exists() else {}

    def stage(self, number: int, tensors: dict[str, Tensor]) -> None:
        """Keep the state at the end of round `number`, to be used if that round's reply is counted."""
        if not tensors:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f".{self._path(number).name}.part"
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part)
        os.replace(part, self._path(number))
