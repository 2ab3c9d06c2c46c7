"""A round that a kill interrupts goes on where it was written down last, with the same result to the last bit.

What a step depends on is the net, the optimiser, the random numbers of dropout and the step's number: batches are a
pure function of it. All of that is one file, replaced from time to time.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from client.training import Progress, optimizer_tensors, restore_optimizer
from common.disk import write_whole
from common.errors import StorageError

log = logging.getLogger("fedscan.trainer")

EVERY = 60.0  # seconds of work between two writes
SHARE = 0.01  # of the time that writing may take, where a write is slow


class Midround(Progress):
    """The progress of one round, on disk as well.

    Args:
        path: The file. One that was written for another round, or is damaged, counts as none.
        key: Names everything on which the round depends.
        now: Whether the work is about to be stopped: then it is written at once.
        every: Seconds between two writes, `EVERY` if none; more where writing would take over `SHARE` of the time.
        clock: Seconds that pass.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        now: Callable[[], bool] = lambda: False,
        every: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._path, self._key, self._now, self._clock = path, key, now, clock
        self._every = EVERY if every is None else every
        self.stop = False  # whether the work ends here: what is done is written
        self._found: dict[str, Tensor] = {}
        self._began = self._due = clock()
        self._read()
        self._due += self._every

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Put back what was written, if anything was; gives what was written beside."""
        if not self._found:
            return {}
        net.load_state_dict(_under("net.", self._found))
        restore_optimizer(optimizer, {k: v for k, v in self._found.items() if k.startswith("optimizer.")})
        _set_random(next(net.parameters()).device, self._found)
        beside, self._found = _under("beside.", self._found), {}
        log.info("the round goes on after step %d", self.done)
        return beside

    def add(
        self,
        loss: float,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        beside: Callable[[], Mapping[str, Tensor]] = dict,
    ) -> None:
        """Count a step, and write when it is time; a full disk costs the checkpoint, not the round."""
        super().add(loss, net, optimizer)
        self.stop = self._now()
        if self._clock() < self._due and not self.stop:
            return
        started = self._clock()
        try:
            self._write(net, optimizer, beside(), started)
        except StorageError as error:
            log.warning("no checkpoint inside the round: %s", error)
        ended = self._clock()
        self._due = ended + max(self._every, (ended - started) / SHARE)

    def _write(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, beside: Mapping[str, Tensor], now: float
    ) -> None:
        # Loss and seconds as Python's shortest spelling, which reads back as the same double.
        about = {"key": self._key, "done": str(self.done), "total": repr(self.total),
                 "seconds": repr(self.seconds + now - self._began)}  # fmt: skip
        tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
        tensors |= dict(optimizer_tensors(optimizer)) | _random(next(net.parameters()).device)
        tensors |= {f"beside.{name}": value for name, value in beside.items()}
        whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        write_whole(self._path, lambda part: save_file(whole, part, metadata={"round": json.dumps(about)}))

    def _read(self) -> None:
        try:
            with safe_open(self._path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("round", "{}"))
                if about.get("key") != self._key:
                    return
                self._found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a dict
        except FileNotFoundError:
            return
        except (SafetensorError, OSError, ValueError):
            log.warning("%s is damaged: the round begins anew", self._path.name)
            return
        self.done, self.total, self.seconds = int(about["done"]), float(about["total"]), float(about["seconds"])


def _random(device: torch.device) -> dict[str, Tensor]:
    state = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["random.device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["random.device"] = torch.mps.get_rng_state()
    return state


def _set_random(device: torch.device, found: dict[str, Tensor]) -> None:
    torch.set_rng_state(found["random.cpu"])
    if device.type == "cuda" and "random.device" in found:
        torch.cuda.set_rng_state(found["random.device"], device)
    elif device.type == "mps" and "random.device" in found:
        torch.mps.set_rng_state(found["random.device"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
