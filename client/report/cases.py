"""The site's own cases beside the model: Dice by case and label, and pictures of some of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from client.data.cache import load_image, load_meta, load_truth
from client.data.preprocess import restore
from client.data.volume import CachedCase
from client.inference import segment
from client.metrics import Mean, dice, mean
from client.report.pictures import three
from client.training import channels_last
from common.bundle import Bundle
from common.metrics import DICE
from common.study import Study

Score = float | None


@dataclass(frozen=True)
class Picture:
    """One case as it is shown.

    Attributes:
        case: Its id.
        scores: Dice by label; none where neither mask has the label.
        views: The scan, the site's own mask, the model's mask: PNG in base64.
    """

    case: str
    scores: tuple[Score, ...]
    views: tuple[str, str, str]


@dataclass(frozen=True)
class Column:
    """One metric of one label.

    Attributes:
        heading: Metric, label and unit.
        values: By case; none where there is none.
    """

    heading: str
    values: Mapping[str, Score]


@dataclass(frozen=True)
class CaseTable:
    """Dice of cases.

    Attributes:
        rows: Id and Dice by label of each case, the lowest mean first.
        means: Mean Dice by label over the cases that have it.
        overall: Mean over the labels.
        more: What else was measured.
    """

    rows: tuple[tuple[str, tuple[Score, ...]], ...]
    means: tuple[Mean, ...]
    overall: Score
    more: tuple[Column, ...] = ()


def table_of(
    labels: Sequence[str], rows: Sequence[dict[str, Any]], metrics: Sequence[Mapping[str, Any]] = ()
) -> CaseTable | None:
    """The table of per-case results as the trainer kept them (`client.work.results`); none without any.

    Args:
        labels: As the study names them.
        rows: The results.
        metrics: As `common.measured` says them; those that the rows have become columns beside Dice.
    """
    if not rows:
        return None
    scored = [(str(r["case"]), tuple(_number(r["dice"].get(label)) for label in labels)) for r in rows]
    means = tuple(mean(_or_nan(s[i]) for _, s in scored) for i in range(len(labels)))
    overall = mean(m.value for m in means)
    ordered = sorted(scored, key=lambda row: (_mean_of(row[1]), row[0]))
    more = [
        Column(
            f"{metric['title']} {label}" + (f", {metric['unit']}" if metric["unit"] else ""),
            {str(r["case"]): _number(r[metric["name"]].get(label)) for r in rows},
        )
        for metric in metrics
        if metric["name"] != DICE and all(metric["name"] in r for r in rows)
        for label in labels
    ]
    return CaseTable(tuple(ordered), means, overall.value if overall.of else None, tuple(more))


def judged(
    model: Bundle, cases: Sequence[CachedCase], device: torch.device, progress: Callable[[], object]
) -> list[dict[str, Any]]:
    """What the trainer would keep of `model` on `cases`, as rows for `table_of`."""
    net, study, rows = _net(model, device), model.study, []
    for case in cases:
        scores = dice(segment([net], case, study, device), np.asarray(load_truth(case)), len(study.data.labels))
        named = {n: None if math.isnan(d) else d for n, d in zip(study.data.labels, scores, strict=True)}
        rows.append({"case": case.id, "patient": case.patient, "dice": named})
        progress()
    return rows


def pictures(
    model: Bundle, cases: Sequence[CachedCase], device: torch.device, progress: Callable[[], object]
) -> list[Picture]:
    """Pictures of `cases` with both masks."""
    net = _net(model, device)
    shown = []
    for case in cases:
        shown.append(_picture(net, case, model.study, device))
        progress()
    return shown


def chosen(table: CaseTable | None, cases: Sequence[CachedCase], most: int) -> list[CachedCase]:
    """At most `most` cases from the lowest Dice to the highest, evenly spread."""
    by_id = {c.id: c for c in cases}
    ordered = [by_id[name] for name, _ in table.rows if name in by_id] if table else list(cases)
    if len(ordered) <= most:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / max(most - 1, 1))] for i in range(most)]


def _picture(net: nn.Module, case: CachedCase, study: Study, device: torch.device) -> Picture:
    truth, meta = np.asarray(load_truth(case)), load_meta(case)
    found = segment([net], case, study, device)
    image = restore(np.array(load_image(case)[:1]), meta)[0]
    scores = tuple(_number(d) for d in dice(found, truth, len(study.data.labels)))
    return Picture(case.id, scores, three(image, truth, found, meta["own"]["spacing"]))


def _net(model: Bundle, device: torch.device) -> nn.Module:
    return channels_last(model.net().to(device))


def _number(value: float | None) -> Score:
    return None if value is None or math.isnan(value) else float(value)


def _or_nan(score: Score) -> float:
    return math.nan if score is None else score


def _mean_of(scores: Sequence[Score]) -> float:
    there = [s for s in scores if s is not None]
    return sum(there) / len(there) if there else math.inf
