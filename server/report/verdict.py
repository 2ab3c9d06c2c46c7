"""Was federation worth it? The answer in plain sentences, each with the number and the interval behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from server.report import sentences
from server.report.comparison import Difference, compare, compare_abroad
from server.report.failures import LOCAL, PROBE
from server.report.tables import Scores, is_pooled

SMALL = 0.01
"""Mean Dice gains below this are called small: a certain gain is not yet a large one."""


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        tone: "better", "mixed" (better, but not everywhere), "open", "worse" or "none" (nothing to compare).
        headline: One short sentence.
        sentences: The reasons, most important first.
        federated: Key of the method that stands for federation, see `choose`.
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
    if scores.judged:
        return _judged(scores)
    candidates = [m for m in scores.methods if scores.kinds[m] == "federated"]
    choice = choose(results["costs"], candidates, results["study"].get("method"))
    if choice is None:
        why = "every federated method failed" if candidates else "no federated method was run"
        return Verdict("none", f"Not judged: {why}.", (), None, (), ())
    federated = choice.method
    pooled = best(scores, [m for m in scores.methods if is_pooled(m)])
    others = [m for m in scores.methods if scores.kinds[m] == "baseline" and m != LOCAL and not is_pooled(m)]
    overall = {m: d for m in [LOCAL, *others, pooled] if m and (d := compare(scores, federated, m))}
    sites = [d for s in scores.sites if (d := compare(scores, federated, LOCAL, s))]
    home = [d for d in sites if d.site in scores.trained]
    away = compare_abroad(scores, federated, LOCAL)
    tone, headline = _untested(results["sites"]) or _headline(scores, overall, home, away)
    if any(d.incomplete for d in overall.values()):
        headline += " Some runs failed, so the comparison has gaps."
    reasons = []
    if LOCAL in overall:
        reasons += [sentences.against_local(scores, overall[LOCAL]), sentences.by_site(home)]
        reasons += [sentences.abroad(scores, away)] if away else []
    reasons += [sentences.unseen(scores, d) for d in sites if d.site in scores.unseen]
    probes = [m for m in scores.methods if scores.kinds[m] == PROBE]
    own = results["study"].get("method")
    reasons += [sentences.left_out(scores, d) for m in probes if own and (d := compare(scores, own, m))]
    reasons += [sentences.against_pooled(scores, d) for m, d in overall.items() if is_pooled(m)]
    reasons += [sentences.against_other(scores, d) for m, d in overall.items() if m in others]
    if LOCAL in overall:
        reasons.append(sentences.seeds(overall[LOCAL], len(scores.seeds)))
    reasons.append(sentences.selection(scores, federated, choice.why, len(candidates)))
    return Verdict(tone, headline, tuple(filter(None, reasons)), federated, tuple(overall.values()), tuple(sites))


def _judged(scores: Scores) -> Verdict:
    """What is said of a given model, which nothing was trained beside."""
    (method,) = scores.methods
    headline = "Judged, not trained: a given model at the sites of this study."
    return Verdict("none", headline, tuple(filter(None, sentences.judged(scores, method))), method, (), ())


@dataclass(frozen=True)
class Choice:
    """The method that stands for federation: the best on `validation` cases, the study's `own`, or the `first`."""

    method: str
    why: Literal["validation", "own", "first"]


def choose(costs: Sequence[Mapping[str, Any]], methods: Sequence[str], own: str | None) -> Choice | None:
    """Choose the method that stands for federation; test cases have no say in it.

    It is the one with the highest mean validation Dice over the seeds; methods that failed under some seed only
    compete if all did. Without validation cases it is the study's own strategy, or the first one that ended.

    Args:
        costs: The rows of `results["costs"]`; a run that failed has none.
        methods: Keys of the federated methods.
        own: Key of the study's own strategy, if it is among them.
    """
    runs = {m: [c["validation"] for c in costs if c["method"] == m] for m in methods}
    most = max(map(len, runs.values()), default=0)
    ended = [m for m, values in runs.items() if values and len(values) == most]
    means = {m: fmean(found) for m in ended if (found := [v for v in runs[m] if v is not None])}
    if means:
        return Choice(max(means, key=means.__getitem__), "validation")
    if own in ended:
        return Choice(own, "own")
    return Choice(ended[0], "first") if ended else None


def best(scores: Scores, methods: Sequence[str]) -> str | None:
    """The method with the highest mean over the training sites, a complete one if there is any; None without scores."""
    means = {m: s.mean for m in methods if (s := scores.summary(m, None))}
    means = {m: v for m, v in means.items() if not scores.missing(m, None)} or means
    return max(means, key=means.__getitem__) if means else None


def _untested(sites: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Tone and headline where no site that trained has a test case; None where one has."""
    if any(s["test"] for s in sites if s["use"] != "test"):
        return None
    where = " at the sites that trained" if any(s["test"] for s in sites) else ""
    return "none", f"Not judged: there are no test cases{where}."


def _headline(
    scores: Scores, overall: Mapping[str, Difference], sites: Sequence[Difference], away: Difference | None
) -> tuple[str, str]:
    """Tone and headline; pooling has no say in it, because it is no choice that a hospital has."""
    local = overall.get(LOCAL)
    if local is None:
        return "none", "Not judged: there are no local models to compare with."
    if local.sign == "few":
        return "open", "Open: too few test patients to say whether federation was worth it."
    if local.sign == "open" and away and away.sign == "better" and away.summary.mean >= SMALL:
        return "mixed", "Yes for scans from elsewhere; at home the sites’ own models do as well."
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
