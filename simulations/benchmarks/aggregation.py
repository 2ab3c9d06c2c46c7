"""One fold beside Flower's FedAvg: `python -m simulations.benchmarks.aggregation [--updates 50] [--strategy fedavg]`.

The spool of 50 updates takes 6.2 GB of `--folder`, a temporary one of the system if none is given.

The updates have 31 million parameters, as the classic 2D U-Net has. Each side has a fresh process. Ours reads them from
the spool, where they lie in the run as they arrive; Flower's `FedAvg.aggregate_train` gets them as messages in memory,
as its round loop hands them over. Timed is what turns updates into the next weights, on the clock, which targets go by,
and on the processor, which says more where other programs run too; writing the spool, which happens while sites are
waited for, is told besides. Memory is Linux's high-water mark of the process (`VmHWM`, proc(5)) beyond
what it held before the first update was there, in models of 4 bytes per parameter: for Flower the updates count,
because the strategy wants all of them at once.
"""

import common.quiet  # noqa: F401

import argparse
import gc
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from common.names import STRATEGIES
from common.schema import Schema
from common.seeds import generator
from common.wire import become
from server.spool import Spool
from server.strategies.base import Fold
from simulations.benchmarks.memory import study

FASTER, SMALLER = 0.5, 4.0  # the targets: share of Flower's time, and models of memory
_PERIOD = 4096  # values after which an update repeats
_METRICS = {"num-examples": 4.0, "steps": 1.0, "loss-received": 1.0, "loss-trained": 0.5}


def update(number: int, n: int) -> NDArray[np.float32]:
    """`n` values that differ from update to update."""
    period = generator(number, "aggregation").standard_normal(_PERIOD).astype(np.float32)
    return np.resize(period, n)


def ours(updates: int, width: int, strategy: str, beneath: Path | None) -> dict[str, float]:
    """Seconds and models of memory of one fold, and the seconds that the spool took."""
    task = study(width)
    schema = Schema.of(task)
    n = schema.sizes["float32"]
    by = STRATEGIES.get(strategy)(**STRATEGIES.check(strategy, {}))
    with TemporaryDirectory(dir=beneath) as folder:
        spool, names = Spool(Path(folder), schema), tuple(f"site-{i}" for i in range(updates))
        spooling = 0.0
        for i, name in enumerate(names):
            values = update(i, n)
            mark = time.perf_counter()
            spool.add(1, name, {"float32": values}, _METRICS)
            spooling += time.perf_counter() - mark
        del values
        before = _mark()
        base = {"float32": np.zeros(n, np.float32)}
        replies = spool.replies(1, names)
        fold = Fold(task, schema, replies, [1.0 + i for i in range(updates)], base, 1, {})
        times = timed(lambda: by.fold(fold))
        return {**times, "models": (_high_water() - before) / schema.nbytes, "spooling": spooling}


def flowers(updates: int, width: int) -> dict[str, float]:
    """The same of Flower's FedAvg over messages with the net's tensors by name."""
    become(run_id=1, node_id=1)
    schema = Schema.of(study(width))
    before = _mark()
    messages = []
    for i in range(updates):
        values = update(i, schema.sizes["float32"])
        arrays = {e.name: Array(values[e.place].reshape(e.shape)) for e in schema.entries}
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1.0 + i})})
        messages.append(Message(content, dst_node_id=1, message_type="train"))
    del values, arrays, content
    times = timed(lambda: FedAvg().aggregate_train(1, messages))
    return {**times, "models": (_high_water() - before) / schema.nbytes}


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of `work` on the clock, of this process on the processor, and GB that came from the disk, not memory."""
    clock, processor, blocks = time.perf_counter(), time.process_time(), getrusage(RUSAGE_SELF).ru_inblock
    work()
    return {
        "seconds": time.perf_counter() - clock,
        "processor_seconds": time.process_time() - processor,
        "disk_gb": (getrusage(RUSAGE_SELF).ru_inblock - blocks) * 512 / 1e9,
    }


def measured(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """`work`'s figures from a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(work)


def file_system(folder: Path) -> str:
    """Folder, kind and device of the mount that holds `folder` (proc(5), mounts), e.g. `/ (ext4, /dev/vda1)`."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    mounts = {Path(at): (kind, device) for device, at, kind, *_ in map(str.split, lines)}
    at = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent in mounts)
    return f"{at} ({', '.join(mounts[at])})"


def _mark() -> int:
    """Start the high-water mark anew; the resident memory now, in bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _high_water()


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def main(arguments: list[str] | None = None) -> int:
    """Measure and print as JSON; 0 if the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--width", type=int, default=64, help="of the U-Net; 64 channels make 31,030,658 parameters")
    parser.add_argument("--strategy", choices=[n for n in STRATEGIES.names() if n != "flower"], default="fedavg")
    parser.add_argument("--folder", type=Path, help="where the spool lies for as long as it is measured")
    given = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    own = measured(partial(ours, given.updates, given.width, given.strategy, given.folder))
    other = measured(partial(flowers, given.updates, given.width))
    ratio = own["seconds"] / other["seconds"]
    met = ratio <= FASTER and own["models"] <= SMALLER
    print(json.dumps({
        "spool": file_system(given.folder or Path(gettempdir())),
        "load": round(load, 1),
        "updates": given.updates,
        "parameters": sum(Schema.of(study(given.width)).sizes.values()),
        given.strategy: {key: round(value, 3) for key, value in own.items()},
        "flower_fedavg": {key: round(value, 3) for key, value in other.items()},
        "time_ratio": round(ratio, 3),
        "processor_ratio": round(own["processor_seconds"] / other["processor_seconds"], 3),
        "memory_ratio": round(own["models"] / other["models"], 3),
        "targets_met": met,
    }, indent=1))  # fmt: skip
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
