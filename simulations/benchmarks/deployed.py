"""Seconds per round between real processes: fedscan beside stock Flower and bare TLS, in one run on this machine.

    python -m simulations.benchmarks.deployed                     # 1 and 31 million parameters, about 15 minutes
    python -m simulations.benchmarks.deployed --parameters 1 --repeats 1
    python -m simulations.benchmarks.deployed --sites-memory      # and the coordinator's memory at 3 and 24 sites

What is compared is the same round each time: global weights go out to the sites, a client that does not train makes
other weights of them (each site others, because equal ones would be sent once), they come back and are averaged.

fedscan   as deployed: the coordinator, and per site a link process (network, no scans) and a trainer process (no
          network); mutual TLS 1.3, enrolled sites, signed study, manifests and replies, gates, spool, checkpoints.
stock     Flower's SuperLink and SuperNodes with TLS and node authentication, apps in subprocesses, state in memory,
          200 separate tensors as Flower's users send them; FedAvg, no evaluation.
bare      the same bytes over TLS and nothing else: httpx to uvicorn, pieces of 5 MiB each way, one client per site.

All of it runs on the loopback in temporary folders and ends with the command. The ways take turns; the first round of
each turn is not counted; the figures are medians. On a machine that does other work look at the ratios.
"""

import common.quiet  # noqa: F401

import argparse
import json
import os
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from simulations.benchmarks.legs import bare, fedscan, stock
from simulations.benchmarks.legs.measured import Measured
from simulations.benchmarks.legs.processes import BenchmarkError

MILLION = 1_000_000
TARGETS = {1: 1 / 20, 31: 1 / 4}  # of stock Flower's seconds, by millions of parameters
FEW, MANY = 3, 24
MEMORY = 1.2  # the coordinator's memory at many sites, of that at few
MEMORY_SIZE, MEMORY_ROUNDS = 4, 3  # millions of parameters: 24 sites hold 200 models
LEGS: Mapping[str, Callable[[Path, int, int, int], Measured]] = {
    "stock": stock.measure,
    "fedscan": fedscan.measure,
    "bare": bare.measure,
}


def compare(millions: int, sites: int, rounds: int, repeats: int, legs: Sequence[str]) -> dict[str, Any]:
    """Medians of each leg and their ratios.

    Raises:
        BenchmarkError: A leg did not come to its end.
    """
    runs: dict[str, list[Measured]] = {leg: [] for leg in legs}
    for repeat in range(repeats):
        for leg in legs:
            say(f"{millions} M parameters, turn {repeat + 1} of {repeats}: {leg}")
            # A socket's path may have about 100 bytes.
            with TemporaryDirectory(prefix="fedscan-benchmark-") as folder:
                runs[leg].append(LEGS[leg](Path(folder), millions * MILLION, sites, rounds))
    seconds = {leg: [s for run in made for s in run.seconds] for leg, made in runs.items()}
    middle = {leg: statistics.median(s) for leg, s in seconds.items()}
    result: dict[str, Any] = {
        "parameters": millions * MILLION,
        "seconds": seconds,
        "median": middle,
        "cpu": {leg: statistics.fmean(run.cpu for run in made) for leg, made in runs.items()},
        "parts": {leg: mean([p for run in made for p in run.parts]) for leg, made in runs.items() if made[0].parts},
        "cpu_parts": {leg: mean([run.cpu_parts for run in made]) for leg, made in runs.items() if made[0].parts},
        "ratio": {f"fedscan/{leg}": middle["fedscan"] / middle[leg] for leg in legs if leg != "fedscan"}
        if "fedscan" in legs else {},
    }  # fmt: skip
    if millions in TARGETS and "fedscan/stock" in result["ratio"]:
        result |= {"target": TARGETS[millions], "target_met": result["ratio"]["fedscan/stock"] <= TARGETS[millions]}
    return result


def mean(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean seconds of each part."""
    names = sorted({name for p in rounds for name in p}, key=fedscan.PARTS.index)
    return {name: statistics.fmean(p.get(name, 0.0) for p in rounds) for name in names}


def memory() -> dict[str, Any]:
    """The coordinator's peak with few and with many sites.

    Raises:
        BenchmarkError: A run did not come to its end.
    """
    found = {}
    for sites in (FEW, MANY):
        say(f"memory, {MEMORY_SIZE} M parameters, {sites} sites")
        with TemporaryDirectory(prefix="fedscan-benchmark-") as folder:
            found[sites] = fedscan.peak_memory(Path(folder), MEMORY_SIZE * MILLION, sites, MEMORY_ROUNDS)
    ratio = found[MANY].peak / found[FEW].peak
    model = 4 * MEMORY_SIZE * MILLION
    return {
        "parameters": MEMORY_SIZE * MILLION,
        "peak_mb": {sites: round(m.peak / 1e6, 1) for sites, m in found.items()},
        "models_beyond_connected": {sites: round((m.peak - m.connected) / model, 2) for sites, m in found.items()},
        "ratio": round(ratio, 3),
        "target": MEMORY,
        "target_met": ratio <= MEMORY,
    }


def show_memory(result: Mapping[str, Any]) -> None:
    """Print the coordinator's memory."""
    print(f"\nCoordinator's memory at its peak, {result['parameters'] // MILLION} M parameters")
    for sites, peak in result["peak_mb"].items():
        print(
            f"  {sites:>3} sites {peak:8.1f} MB, {result['models_beyond_connected'][sites]:.2f} models of it the run's"
        )
    print(f"  ratio {result['ratio']:.3f}   target {result['target']}: {'met' if result['target_met'] else 'MISSED'}")


def show(result: Mapping[str, Any], rounds: int, repeats: int) -> None:
    """Print one size as a table."""
    print(f"\n{result['parameters'] // MILLION} M parameters, seconds per round, {repeats} turns of {rounds} rounds")
    for leg, middle in result["median"].items():
        spread = result["seconds"][leg]
        spent = f"({min(spread):.2f} … {max(spread):.2f}), {result['cpu'][leg]:.2f} of processor time"
        print(f"  {leg:<10}{middle:8.2f}   {spent}")
        if leg in result["parts"]:
            print(f"    seconds, mean   {listed(result['parts'][leg])}")
            print(f"    processor time  {listed(result['cpu_parts'][leg])}")
    for name, ratio in result["ratio"].items():
        line = f"  {name:<16} {ratio:.3f}"
        if name == "fedscan/stock" and "target" in result:
            line += f"   target {result['target']:.3f}: {'met' if result['target_met'] else 'MISSED'}"
        print(line)


def listed(parts: Mapping[str, float]) -> str:
    """Parts and their seconds."""
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())


def say(text: str) -> None:
    """Tell how far it is, where it is not in the way."""
    print(text, file=sys.stderr, flush=True)


def read_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.benchmarks.deployed", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--parameters", default="1,31", metavar="M,M", help="sizes in millions (default: 1,31)")
    parser.add_argument("--sites", type=int, default=2, help="sites (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of a turn (default: 3)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way (default: 3)")
    parser.add_argument("--legs", default=",".join(LEGS), help=f"which ways (default: {','.join(LEGS)})")
    parser.add_argument("--sites-memory", action="store_true", help="peak of the coordinator's memory, 3 and 24 sites")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(words)
    arguments.legs = arguments.legs.split(",")
    if unknown := set(arguments.legs) - set(LEGS):
        parser.error(f"--legs: {', '.join(sorted(unknown))}: there are {', '.join(LEGS)}")
    try:
        arguments.parameters = [int(n) for n in arguments.parameters.split(",")]
    except ValueError:
        parser.error("--parameters: whole millions with commas between, for example 1,31")
    return arguments


def main() -> int:
    """Measure and print; 0 if the targets are met, 1 if one is missed, 2 if a leg failed."""
    arguments = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started ends as well
    os.environ["OMP_NUM_THREADS"] = "1"
    results: dict[str, Any] = {"sites": arguments.sites, "tensors": stock.TENSORS, "sizes": []}
    try:
        for millions in arguments.parameters:
            result = compare(millions, arguments.sites, arguments.rounds, arguments.repeats, arguments.legs)
            results["sizes"].append(result)
            if not arguments.json:
                show(result, arguments.rounds, arguments.repeats)
        if arguments.sites_memory:
            results["memory"] = memory()
            if not arguments.json:
                show_memory(results["memory"])
    except BenchmarkError as error:
        say(str(error))
        return 2
    if arguments.json:
        print(json.dumps(results, indent=1))
    return 0 if all(r.get("target_met", True) for r in (*results["sizes"], results.get("memory", {}))) else 1


if __name__ == "__main__":
    sys.exit(main())
