"""Was federation worth it? The answer in plain sentences, each with the number and the interval behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from server.report import sentences
from server.report.comparison import Difference, compare
from server.report.tables import Scores, is_pooled, summarise_sites

LOCAL = "local"
SMALL = 0.01
"""Mean Dice gains below this are called small: a certain gain is not yet a large one."""


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        tone: "better", "mixed" (better, but some site loses), "open", "worse" or "none" (nothing to compare).
        headline: One short sentence.
        sentences: The reasons, most important first.
        federated: Key of the federated method that was better on the validation cases.
        comparisons: The federated method against local, pooled and the other baselines, over the training sites.
        sites: Against local, site by site.
    """

    tone: str
    headline: str
    sentences: tuple[str, ...]
    federated: str | None
    comparisons: tuple[Difference, ...]
    sites: tuple[Difference, ...]


def judge(results: Mapping[str, Any], scores: Scores | None = None) -> Verdict:
    """The verdict on the simulation in `results` (the content of `results.json`)."""
    scores = scores or Scores(results)
    candidates = [m for m in scores.methods if scores.kinds[m] == "federated"]
    federated = chosen(results["costs"], candidates)
    if federated is None:
        return Verdict("none", "Not judged: no federated method was run.", (), None, (), ())
    pooled = best(scores, [m for m in scores.methods if is_pooled(m)])
    others = [m for m in scores.methods if scores.kinds[m] == "baseline" and m != LOCAL and not is_pooled(m)]
    overall = {m: d for m in [LOCAL, *others, pooled] if m and (d := compare(scores, federated, m))}
    sites = [d for s in scores.sites if (d := compare(scores, federated, LOCAL, s))]
    home = [d for d in sites if d.site in scores.trained]
    tone, headline = _headline(scores, overall, home)
    reasons = []
    if LOCAL in overall:
        reasons += [sentences.against_local(scores, overall[LOCAL], len(home)), sentences.by_site(home)]
    reasons += [sentences.unseen(scores, d) for d in sites if d.site in scores.unseen]
    reasons += [sentences.against_pooled(scores, d) for m, d in overall.items() if is_pooled(m)]
    reasons += [sentences.against_other(scores, d) for m, d in overall.items() if m in others]
    if LOCAL in overall:
        reasons.append(sentences.seeds(overall[LOCAL], len(scores.seeds)))
    if len(candidates) > 1:
        reasons.append(sentences.selection(scores, federated, len(candidates)))
    return Verdict(tone, headline, tuple(filter(None, reasons)), federated, tuple(overall.values()), tuple(sites))


def chosen(costs: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> str | None:
    """The method with the highest mean validation Dice, over its runs and seeds; test cases have no say in it."""
    found = {m: [c["validation"] for c in costs if c["method"] == m and c["validation"] is not None] for m in methods}
    means = {m: fmean(values) for m, values in found.items() if values}
    return max(means, key=means.__getitem__) if means else None


def best(scores: Scores, methods: Sequence[str]) -> str | None:
    """The method with the highest mean over the training sites; None if none has a score."""
    means = {m: s.mean for m in methods if (s := summarise_sites([scores.at(m, site) for site in scores.trained]))}
    return max(means, key=means.__getitem__) if means else None


def _headline(scores: Scores, overall: Mapping[str, Difference], sites: Sequence[Difference]) -> tuple[str, str]:
    """Tone and headline; pooling has no say in it, because it is no choice that a hospital has."""
    local = overall.get(LOCAL)
    if local is None:
        return "none", "Not judged: there are no local models to compare with."
    if local.sign == "few":
        return "open", "Open: too few test patients to say whether federation was worth it."
    if local.sign == "open":
        return "open", "Open: these test scans do not show whether federation was worth it."
    if local.sign == "worse":
        return "worse", "No: the sites were better off with their own models."
    ahead = [scores.titles[m] for m, d in overall.items() if d.sign == "worse" and not is_pooled(m)]
    if ahead:
        return "mixed", f"Better than local models, but {sentences.listed(ahead)} did better still."
    if any(d.sign == "worse" for d in sites):
        return "mixed", "Yes on average, but not for every site."
    if local.summary.mean < SMALL:
        return "better", "Yes, but the gain is small."
    return "better", "Yes: federation was worth it."
