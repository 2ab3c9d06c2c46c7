"""Peak memory of the coordinator, with few sites and with many: `python -m simulations.benchmarks.memory`.

Real are the rounds, the spool, the fold, the checkpoints and the events of two rounds; the sites are stand-ins that
make the bytes of an update when they are asked for it. Counted is all memory of the process beyond what it held after
the imports and a run of a tiny net: global weights before and after the fold, outgoing message, incoming reply, slices
of the fold, files mapped for reading, the net that gives the first weights. Each number of sites has a fresh process,
and the figure is Linux's high-water mark of its resident memory (`VmHWM`, proc(5)), so freed memory that the allocator
holds on to counts too. The unit is one model: 4 bytes per parameter.
"""

import gc
import json
import multiprocessing
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from common import wire
from common.seeds import generator
from common.study import Study
from common.wire import Flat, Schema
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid

SITES = (4, 32)
LARGEST, FLAT = 4.0, 1.05  # the targets: models in all, and how far the counts of sites may lie apart
_PERIOD = 4096  # values after which a stand-in's update repeats


def study(width: int = 64) -> Study:
    """Two rounds of the classic 2D U-Net; its 64 channels make 31,030,658 parameters."""
    return Study.model_validate(
        {
            "name": "memory",
            "data": {"labels": ["organ"], "dimensions": 2},
            "plan": {"patch": [32, 32]},
            "net": {"name": "unet", "width": width, "norm": "none"},
            "training": {"steps": 1},
            "rounds": {"number": 2},
        }
    )


def stand_ins(study: Study) -> ClientApp:
    """Sites that do not train: each sends numbers of its own, and holds none of them before or after."""
    app = ClientApp()
    sizes = Schema.of(study).sizes
    scores = {key: 0.5 for key in wire.evaluate_metric_keys(study)}

    @app.query()
    def _join(message: Message, context: Context) -> Message:
        counts = {"train": 4, "validation": 1, "test": 1, "patients": 6, "steps": 1}
        return wire.site_reply(message, f"site-{context.node_config['partition-id']}", counts)

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        _, task = wire.read_instruction(message)
        rng = generator(task.round, "memory", int(context.node_config["partition-id"]))
        # Not by wire.train_reply: its copy would be a second update in memory, and a site's, not the coordinator's.
        arrays = {dtype: Array(dtype, (n,), wire.STYPE, _values(rng, dtype, n)) for dtype, n in sizes.items()}
        metrics = MetricRecord({"num-examples": 4, "steps": 1, "loss": 0.5, "seconds": 1.0})
        return Message(RecordDict({wire.ARRAYS: ArrayRecord(arrays), wire.METRICS: metrics}), reply_to=message)

    @app.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        return wire.metrics_reply(message, scores)

    return app


def _values(rng: np.random.Generator, dtype: str, n: int) -> bytes:
    """`n` finite values that differ from site to site, little-endian, in one allocation."""
    period = rng.standard_normal(_PERIOD).astype(np.dtype(dtype).newbyteorder("<"))
    return b"".join([period.tobytes()] * (n // _PERIOD) + [period[: n % _PERIOD].tobytes()])


def run(study: Study, sites: int, folder: Path) -> Flat:
    """Both rounds of `study` over `sites` stand-ins, validation and final test; the best weights."""
    grid = InlineGrid(stand_ins(study), sites)
    members = list(join(grid, study).values())
    rounds = Run(grid, study, folder / "run", members, members)
    rounds.start()
    return rounds.best()


def peak(sites: int) -> float:
    """Models of memory beyond the imports that this process, which must be fresh, needs at most."""
    with TemporaryDirectory() as folder:
        run(study(width=2), 1, Path(folder) / "first")  # what is imported on first use is no model's memory
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts anew: proc(5)
        before = _high_water()
        run(study(), sites, Path(folder) / "measured")
        return (_high_water() - before) / Schema.of(study()).nbytes


def _high_water() -> int:
    """The largest resident memory of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def main() -> int:
    """Measure and print as JSON; 0 if the targets are met."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.map(peak, SITES, chunksize=1)
    ratio = max(peaks) / min(peaks)
    met = max(peaks) <= LARGEST and ratio <= FLAT
    print(json.dumps({
        "parameters": sum(Schema.of(study()).sizes.values()),
        "models_at_peak": {str(n): round(p, 3) for n, p in zip(SITES, peaks, strict=True)},
        "ratio": round(ratio, 3),
        "targets_met": met,
    }, indent=1))  # fmt: skip
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
