"""Training batches: patches cut from the cached cases, the same bytes for the same step whoever asks, and when."""

import os
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.data.augment import Augmentation
from client.data.boxes import Voxels, clamp, cut, smallest
from client.data.cache import load_foreground, load_image, load_label
from client.data.volume import CachedCase
from common.errors import DataError
from common.seeds import derive, generator
from common.study import Study

Batch = tuple[Tensor, Tensor]

# Python holds a file descriptor for every mapped array; a process with ten sites must stay below the usual 1024.
OPEN_CASES = 24


@dataclass(frozen=True)
class _Open:
    """A case's mapped arrays, and its labelled voxels `(N, dims)`, one array per label that it has."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    foreground: tuple[NDArray[np.int32], ...]


class Batches:
    """The endless stream of a site's training batches.

    Batch t is a pure function of (cases, study, stream, t): nothing depends on what was drawn before, so a resumed
    run, another thread or another process continues with the same bytes.

    Every case is drawn once per epoch, in an order that changes from epoch to epoch; batches run on over the end of an
    epoch. Of the patches a share of `study.training.foreground` is placed around a labelled voxel, the rest anywhere
    in the scan. Every label that the case has is drawn equally often, however small it is, then one of its voxels; the
    voxel lies anywhere in the middle half of the patch, nearer to the face at the face of the scan. Where a scan is
    smaller than the patch it lies in the patch's middle, and around it the image holds the scan's smallest value of
    each channel (air) and the label 0: that nothing is there is known even where the scan itself has voxels without a
    label (IGNORE).

    Args:
        cases: The site's training cases, in any order.
        study: What is trained.
        stream: Seed of the stream.

    Raises:
        DataError: There is no case.
    """

    def __init__(self, cases: Sequence[CachedCase], study: Study, stream: int) -> None:
        if not cases:
            raise DataError("the site has no training case that can be used; see its findings")
        self.cases = tuple(sorted(cases, key=lambda case: (case.content, case.id)))
        self.study = study
        self.stream = stream
        self._patch = np.array(study.plan.patch)
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._around: dict[int, NDArray[np.float32]] = {}
        self._lock = Lock()

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which every case is seen at least once."""
        return -(-len(self.cases) // self.study.training.batch)

    def at(self, step: int) -> Batch:
        """Batch number `step` (from 0): image (B, C, *patch) float32, label (B, *patch) int64, IGNORE without one."""
        size = self.study.training.batch
        samples = [self._sample(index) for index in range(step * size, (step + 1) * size)]
        image = torch.stack([image for image, _ in samples])
        label = torch.stack([label for _, label in samples])
        return image, label.to(torch.int64)

    def prefetch(self, start: int, count: int) -> Iterator[Batch]:
        """Batches `start` … `start + count − 1` in order, a few prepared ahead in background threads.

        An exception in a thread is raised here at its batch. The threads end with the iterator, also when it is
        closed early.
        """
        workers = max(1, min(4, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else 2))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in range(start, start + count):
                waiting.append(pool.submit(self.at, step))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _sample(self, index: int) -> Batch:
        """Sample number `index` of the stream: image (C, *patch) float32, label (*patch) uint8."""
        epoch, place = divmod(index, len(self.cases))
        number = int(generator(self.stream, "order", epoch).permutation(len(self.cases))[place])
        case = self._opened(number)
        corner = self._corner(case, generator(self.stream, "place", index))
        if self.study.training.augment == "none":
            return self._cut(number, case, corner, self._patch)
        seed = derive(self.stream, "augment", index)
        augmentation = Augmentation(seed, self.study.plan.patch, self.study.plan.spacing)
        margin = np.array(augmentation.margin)
        return augmentation(*self._cut(number, case, corner - margin, self._patch + 2 * margin))

    def _corner(self, case: _Open, rng: np.random.Generator) -> Voxels:
        """The patch's first voxel; negative where the scan is smaller than the patch."""
        room = np.array(case.label.shape) - self._patch
        if rng.random() < self.study.training.foreground and len(case.foreground):
            voxels = case.foreground[rng.integers(len(case.foreground))]
            voxel = voxels[rng.integers(len(voxels))]
            corner = voxel - rng.integers(self._patch // 4, self._patch - self._patch // 4)
        else:
            corner = rng.integers(0, np.maximum(room, 0) + 1)
        return clamp(corner, room)

    def _cut(self, number: int, case: _Open, corner: Voxels, size: Voxels) -> Batch:
        """The box of `size` at `corner`, which may lie partly outside the scan."""
        leaves = (corner < 0).any() or (corner + size > case.label.shape).any()
        around = self._smallest(number, case) if leaves else np.zeros(len(case.image), np.float32)
        image = cut(case.image, corner, size, around)
        label = cut(case.label[None], corner, size, np.zeros(1, np.uint8))[0]
        return torch.from_numpy(image), torch.from_numpy(label)

    def _smallest(self, number: int, case: _Open) -> NDArray[np.float32]:
        """What surrounds the case: read once per case, and only if it must be padded."""
        if number not in self._around:
            self._around[number] = smallest(case.image)
        return self._around[number]

    def _opened(self, number: int) -> _Open:
        with self._lock:
            if number not in self._open:
                case = self.cases[number]
                self._open[number] = _Open(load_image(case), load_label(case), _by_label(load_foreground(case)))
                if len(self._open) > OPEN_CASES:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]


def _by_label(foreground: NDArray[np.int32]) -> tuple[NDArray[np.int32], ...]:
    """The voxels of each label, from `(N, dims + 1)` as `load_foreground` gives it."""
    values = foreground[:, -1]
    return tuple(foreground[values == value, :-1] for value in np.unique(values))
