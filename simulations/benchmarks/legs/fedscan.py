"""fedscan as it is deployed: one coordinator's process, and per site one of the link and one of the trainer."""

import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from common.manifests import read_signed_study
from server.events import read_events
from server.service.control import ControlClient, NoServerError
from simulations.benchmarks.legs import federation, timeline
from simulations.benchmarks.legs.measured import Measured
from simulations.benchmarks.legs.processes import ROOT, BenchmarkError, Processes, free_port
from simulations.benchmarks.legs.roles import PARTS, ROUND

__all__ = ["PARTS", "Memory", "measure", "peak_memory"]

TENSORS = 200
_ROLES = ("link", "trainer")
_START, _ROUND = 180, 120  # seconds at most


class Memory(NamedTuple):
    """Resident memory of the coordinator's process, in bytes.

    Attributes:
        connected: When all sites were there and nothing had been asked.
        peak: At most, from then on.
    """

    connected: int
    peak: int


def measure(folder: Path, parameters: int, sites: int, rounds: int) -> Measured:
    """Seconds of each round after the first, from checkpoint to checkpoint, and their parts.

    Raises:
        BenchmarkError: It did not start, did not end, or a site failed in a round.
    """
    homes = federation.make(folder, free_port(), federation.study(parameters, TENSORS, rounds + 1), sites)
    with Processes(folder / "processes", {"PYTHONPATH": str(ROOT)}) as processes:
        _begin(processes, "server", "server", homes.coordinator)
        for i, home in enumerate(homes.sites):
            for role in _ROLES:
                _begin(processes, role, f"{role}-{i}", home)
        _ask_for_run(processes, homes)
        _wait_for_event(processes, homes, ("checkpoint",), rounds + 1)
        before = processes.cpu_each()
        _wait_for_end(processes, homes, rounds + 1)
        used = {name: seconds - before[name] for name, seconds in processes.cpu_each().items()}
        noted = {name: timeline.read([processes.folder / f"{name}.trace"]) for name in used}
    stretches = [stretch for found in noted.values() for stretch in found]
    ends = sorted(s.end for s in stretches if s.part == ROUND)
    # The first checkpoint is that of the first weights, the last one says that all is finished.
    marks, busy = ends[1 : rounds + 2], [s for s in stretches if s.part != ROUND]
    parts = timeline.processor_times(busy, marks[0], marks[-1])
    for name, total in used.items():
        rest = total - sum(timeline.processor_times(noted[name], marks[0], marks[-1]).values())
        key = f"rest of {name.partition('-')[0]}"
        parts[key] = parts.get(key, 0.0) + rest
    return Measured(
        [after - before for before, after in pairwise(marks)],
        sum(used.values()) / rounds,
        [timeline.share_out(busy, before, after) for before, after in pairwise(marks)],
        {part: spent / rounds for part, spent in parts.items()},
    )


def peak_memory(folder: Path, parameters: int, sites: int, rounds: int) -> Memory:
    """The coordinator's memory with many light-weight sites: the same links and trainers, forked from one process.

    Raises:
        BenchmarkError: As `measure` does.
    """
    homes = federation.make(folder, free_port(), federation.study(parameters, TENSORS, rounds), sites)
    with Processes(folder / "processes", {"PYTHONPATH": str(ROOT)}) as processes:
        server = _begin(processes, "server", "server", homes.coordinator)
        _begin(processes, "sites", "sites", folder)
        _wait_for_sites(processes, homes)
        connected = _resident(server, "VmRSS")
        Path(f"/proc/{server}/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew: proc(5)
        _ask_for_run(processes, homes)
        _wait_for_end(processes, homes, rounds)
        return Memory(connected, _resident(server, "VmHWM"))


def _begin(processes: Processes, role: str, name: str, home: Path) -> int:
    trace = str(processes.folder / f"{name}.trace")
    command = [sys.executable, "-m", "simulations.benchmarks.legs.roles", role, str(home), trace]
    return processes.start(name, command).pid


def _wait_for_sites(processes: Processes, homes: federation.Homes) -> None:
    with ControlClient(homes.coordinator) as client:
        processes.wait("connected sites", partial(_connected, client, len(homes.sites)), _START)


def _ask_for_run(processes: Processes, homes: federation.Homes) -> None:
    _wait_for_sites(processes, homes)
    with ControlClient(homes.coordinator) as client:
        client.start(read_signed_study(homes.signed.read_bytes()), None)


def _wait_for_end(processes: Processes, homes: federation.Homes, rounds: int) -> None:
    events = _wait_for_event(processes, homes, ("finished",), rounds)
    wrong = [e for e in events if e["event"] == "failed" and e["round"] > 0]
    if wrong:
        raise BenchmarkError(f"a site failed: {wrong[0]}")


def _wait_for_event(
    processes: Processes, homes: federation.Homes, kinds: tuple[str, ...], rounds: int
) -> list[dict[str, Any]]:
    path = homes.coordinator / "runs" / federation.RUN / "events.jsonl"
    wanted = (*kinds, "stopped")
    there = partial(_has, path, wanted)
    processes.wait(f"event {' or '.join(wanted)} of the run", there, _START + _ROUND * rounds)
    events = read_events(path)
    if any(e["event"] == "stopped" for e in events):
        raise BenchmarkError(f"the run stopped: {events[-5:]}")
    return events


def _has(path: Path, kinds: tuple[str, ...]) -> bool:
    return any(e["event"] in kinds for e in read_events(path))


def _connected(client: ControlClient, sites: int) -> bool:
    try:
        return sum(s.connected for s in client.status().sites) == sites
    except NoServerError:
        return False


def _resident(process: int, what: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024
