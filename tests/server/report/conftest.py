"""Made-up results of a simulation, in the format that `fedscan simulate` writes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

METHODS = [
    ("local", "Local only", "baseline", -0.06),
    ("consensus", "Consensus of local models", "baseline", -0.03),
    ("fedavg", "FedAvg", "federated", 0.0),
    ("fedprox", "FedProx", "federated", 0.004),
    ("pooled_t", "Pooled, T updates", "baseline", 0.0),
    ("pooled_kt", "Pooled, K·T updates", "baseline", 0.012),
]
NAMES = [
    "Northwick University Hospital, Department of Radiology",
    "St. Elm",
    "Lakeside",
    "Hôpital_intercommunal_de_la_Vallée-de-l_Île-Verte",
    "Castell",
    "Zum Tor",
]
METRICS = [
    {"name": "dice", "title": "Dice", "unit": "", "ideal": 1.0, "least": 0.0, "most": 1.0},
    {"name": "hd95", "title": "HD95", "unit": "mm", "ideal": 0.0, "least": 0.0, "most": None},
]
LABELS = ["anterior", "posterior", "body", "tail", "a", "b", "c", "d", "e", "f"]


def build(
    sites: int = 5, labels: int = 2, seeds: int = 3, rounds: int = 20, unseen: bool = True, distances: bool = False
) -> dict[str, Any]:
    """Results of `sites` sites: the last one for testing only, with 2 patients; Lakeside loses by federation.

    With `distances` there is an HD95, which is 20 mm times what is missing in Dice.
    """
    rng = np.random.default_rng(1)
    names = [NAMES[i] if i < len(NAMES) else f"Clinic {i + 1}" for i in range(sites)]
    tests = [int(n) for n in rng.integers(8, 22, sites)]
    tests[1 % sites] = 4
    if unseen:
        tests[-1] = 2
    trained = names[:-1] if unseen else names
    shown = LABELS[:labels]
    cases, curves, costs = [], [], []
    hardness = [rng.normal(0.86 - 0.01 * (i % 4), 0.05, n) for i, n in enumerate(tests)]
    for seed in range(1, seeds + 1):
        for method, _, _, gain in METHODS:
            for model in trained if method == "local" else ["all"]:
                for i, name in enumerate(names):
                    away = -0.09 if model not in ("all", name) else 0.0
                    home = 0.075 if name == "Lakeside" and method == "local" and not away else 0.0
                    for k in range(tests[i]):
                        base = hardness[i][k] + gain + away + home + rng.normal(0, 0.012)
                        dice: dict[str, float | None] = {
                            label: float(np.clip(base - 0.03 * j, 0, 1)) for j, label in enumerate(shown)
                        }
                        if k == 3 and labels > 1:
                            dice[shown[-1]] = None
                        patient = f"p{k // 2 if i == 0 else k}"
                        more = {"hd95": {x: None if d is None else 20 * (1 - d) for x, d in dice.items()}}
                        cases.append({"seed": seed, "method": method, "trained_on": model, "site": name,
                                      "case": f"case-{k:03d}", "patient": patient, "dice": dice,
                                      **(more if distances else {})})  # fmt: skip
                here = trained if model == "all" else [model]
                for t in range(1, rounds + 1):
                    rise = 1 - np.exp(-t / 5)
                    reached = (0.86 + gain) * rise
                    curves.append({"seed": seed, "method": method, "trained_on": model, "round": t, "updates": 50 * t,
                                   "loss": {s: float(1.4 * (1 - 0.8 * rise) + rng.normal(0, 0.02)) for s in here},
                                   "validation": {s: float(reached + rng.normal(0, 0.008)) for s in here}})  # fmt: skip
                sent = 0 if model != "all" or "pooled" in method else 4_812_345 * rounds * len(trained)
                costs.append({"method": method, "seed": seed, "trained_on": model, "seconds": 61.2, "updates": 1000,
                              "bytes_down": sent, "bytes_up": sent, "best_round": rounds - seed,
                              "validation": reached})  # fmt: skip
    finding = {"code": "label-grid", "severity": "error", "case": "case-017",
               "what": "labels/case-017.nii.gz has another grid than its image", "remedy": "resample it"}  # fmt: skip
    return {
        "format": 1,
        "study": {"name": "hippocampus-five-sites", "description": "Anterior and posterior hippocampus in MRI.",
                  "digest": "9f2c" * 16, "yaml": "name: hippocampus\nseed: 1\ntraining:\n  steps: 50\n",
                  "net": {"name": "dynunet", "parameters": 1_203_086, "bytes_fp32": 4_812_344}},
        "versions": {"fedscan": "0.1.0", "flwr": "1.41.0", "torch": "2.13.0", "monai": "1.6.1", "python": "3.12.4"},
        "engine": "inline", "device": "cpu", "started": "2031-04-05T06:07:08+00:00", "seconds": 5025.0,
        "seeds": list(range(1, seeds + 1)), "labels": shown,
        "sites": [{"name": n, "train": 0 if n not in trained else 30 + i, "validation": 0 if n not in trained else 8,
                   "test": tests[i], "patients": 40 + i, "use": "train" if n in trained else "test",
                   "findings": [finding] if i == 1 else []} for i, n in enumerate(names)],
        **({"metrics": METRICS} if distances else {}),
        "methods": [{"key": k, "title": t, "kind": kind} for k, t, kind, _ in METHODS],
        "cases": cases, "curves": curves, "costs": costs, "pictures": [],
    }  # fmt: skip


@pytest.fixture
def make_results() -> Callable[..., dict[str, Any]]:
    """`make_results(sites=, labels=, seeds=, rounds=, unseen=, distances=)`."""
    return build
