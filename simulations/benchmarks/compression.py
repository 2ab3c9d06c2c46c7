"""What small updates cost in Dice: `python -m simulations.benchmarks.compression --data SCANS --rounds 30`.

A study (the hippocampus example, if no other is given) runs once for each form of the update and seed, over the same
sites, cases, weights and batches; only what crosses upwards differs. Bytes are those that the sites' messages had, for
all sites together; Dice is the mean over sites of the final test, made with the last round's weights. What is done is
kept in --out, and a run that was interrupted goes on there.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from client.app import make_app
from common.documents import Document
from common.section import Choice
from common.study import Study, study_of
from server.events import read_events
from server.joining import join
from server.rounds import Run
from simulations.config import simulated_sites
from simulations.inline import InlineGrid
from simulations.sites import Field

STUDY = Path(__file__).parents[2] / "examples" / "hippocampus-mr.yaml"
FORMS: dict[str, dict[str, Any]] = {
    "full": {"name": "full"},
    "int8": {"name": "int8"},
    "topk 0.1": {"name": "topk", "share": 0.1},
    "topk 0.01": {"name": "topk", "share": 0.01},
    "half float16": {"name": "half"},
    "half bfloat16": {"name": "half", "dtype": "bfloat16"},
    "topk 0.01 without feedback": {"name": "topk", "share": 0.01, "feedback": False},
}
SHARE, LOSS = 0.26, 0.002  # what is asked of int8: of the bytes of full, and of Dice


def of(study: Study, form: str, seed: int, rounds: int) -> Study:
    """The study with this form of the update; validated again, so that options are filled in."""
    changed = study.model_copy(
        update={
            "update": Choice.model_validate(FORMS[form]),
            "seed": seed,
            "rounds": study.rounds.model_copy(update={"number": rounds}),
            # Validation has no say here: the last round is tested.
            "evaluation": study.evaluation.model_copy(update={"every": rounds}),
        }
    )
    return Study.model_validate(changed.model_dump(mode="json"))


def measured(study: Study, field: Field, folder: Path) -> dict[str, float]:
    """Bytes of a round upwards, and Dice; runs what is not done yet."""
    sites = field.open()
    grid = InlineGrid(make_app(lambda context: sites[int(context.node_config["partition-id"])]), len(sites))
    joined = join(grid, study)
    members = [joined[name] for name in field.training]
    Run(grid, study, folder, members, members).start()
    events = read_events(folder / "events.jsonl")
    trained = [e for e in events if e["event"] == "trained"]
    tested = [e["dice"] for e in events if e["event"] == "evaluated" and e["part"] == "test"]
    return {"bytes": sum(e["bytes"] for e in trained) / study.rounds.number, "dice": statistics.fmean(tested)}


def table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown; each form beside full with the same seeds."""
    lines = ["| update | uplink per round | of full | Dice | Dice − full | seeds |", "|---|---|---|---|---|---|"]
    full = results.get("full", [])
    for form, runs in results.items():
        pairs = list(zip(runs, full, strict=False))
        if not pairs:
            continue
        dice = statistics.fmean(one["dice"] for one, _ in pairs)
        less = dice - statistics.fmean(other["dice"] for _, other in pairs)
        share = pairs[0][0]["bytes"] / pairs[0][1]["bytes"]
        size = f"{pairs[0][0]['bytes'] / 1e6:.3f} MB"
        lines.append(f"| {form} | {size} | {share:.4f} | {dice:.4f} | {less:+.4f} | {len(pairs)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, write results.json beside the runs, and print the table; 0 if int8 is as small and as good as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", nargs="?", type=Path, default=STUDY, help="study with sites (default: hippocampus)")
    parser.add_argument("--data", type=Path, help="folder that holds the study's scans (default: $FEDSCAN_DATA)")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default=",".join(FORMS), help="forms, with commas; full always")
    parser.add_argument("--out", type=Path, default=Path("compression-runs"))
    given = parser.parse_args()
    forms = [form for form in FORMS if form == "full" or form in given.only.split(",")]
    torch.set_num_threads(1)
    document = Document.read(given.study)
    first = study_of(document)
    configs = tuple(simulated_sites(document, first, given.data, given.out))
    results: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    for seed in range(first.seed, first.seed + given.seeds):
        for form in forms:
            study = of(first, form, seed, given.rounds)
            place = given.out / f"{form.replace(' ', '-')}-{study.digest()[:12]}"
            field = Field(configs, given.out / "cache", place / "sites")
            results[form].append(measured(study, field, place / "run"))
            (given.out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
            print(f"seed {seed}, {form}: {results[form][-1]}", file=sys.stderr, flush=True)
    print(table(results))
    if "int8" not in forms:
        return 0
    one, two = (statistics.fmean(run["dice"] for run in results[form]) for form in ("int8", "full"))
    small = results["int8"][0]["bytes"] <= SHARE * results["full"][0]["bytes"]
    return 0 if small and two - one <= LOSS else 1


if __name__ == "__main__":
    sys.exit(main())
