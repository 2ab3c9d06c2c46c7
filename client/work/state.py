"""What a site keeps of a run between rounds: optimiser moments, local buffers.

A round's state is staged beside its reply and becomes the one to go on from only when a later message says that the
reply was counted. A lost reply, or a task that is done twice, therefore never puts the site ahead of the coordinator.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.disk import write_whole
from common.errors import CheckpointError


class SiteState:
    """The kept state of one run at one site.

    Args:
        folder: The run's folder in the site's home.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}.safetensors"

    def _rounds(self) -> list[int]:
        return [int(p.stem.removeprefix("round-")) for p in self._folder.glob("round-*.safetensors")]

    def load(self, counted: int, needed: bool = False) -> dict[str, Tensor]:
        """The state of the last counted round up to `counted`; empty at the start of a run.

        Args:
            counted: The last round whose reply was counted; 0 if none was.
            needed: Whether training cannot go on without the state of exactly that round.

        Raises:
            CheckpointError: The file is damaged, or needed and not there.
        """
        number = max((n for n in self._rounds() if n <= counted), default=0)
        if needed and number != counted:
            raise CheckpointError(
                f"{self._path(counted)} is gone, and without it this site cannot go on in this run: the coordinator "
                "still counts on what it held. Put it back from a backup, or wait for the next run"
            )
        if not number:
            return {}
        try:
            return load_file(self._path(number))
        except (SafetensorError, OSError):
            raise CheckpointError(
                f"{self._path(number)} is damaged; put it back from a backup, or remove it: training then goes on "
                "without it, unless the strategy needs it"
            ) from None

    def clean(self, acknowledged: int, best: int = 0) -> None:
        """Remove what can no longer be asked for; called when a round begins.

        Kept are the state of the last counted round and that of the last counted one up to round `best`. Later than
        `acknowledged` are only states whose replies were never counted, and that of the round that begins, which is
        made again.
        """
        counted = [n for n in self._rounds() if n <= acknowledged]
        kept = {max(counted, default=0), max((n for n in counted if n <= best), default=0)}
        for number in set(self._rounds()) - kept:
            self._path(number).unlink()

    def stage(self, number: int, tensors: dict[str, Tensor]) -> None:
        """Keep the state at the end of round `number`, to be used if that round's reply is counted."""
        if tensors:
            whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
            write_whole(self._path(number), lambda part: save_file(whole, part))
