"""The verdict's sentences. Numbers carry three decimals and a sign where they are differences."""

from collections.abc import Sequence

from server.report.bootstrap import MIN_PATIENTS
from server.report.comparison import Difference
from server.report.failures import EVERYONE, Failure
from server.report.tables import Scores

NAMED = 4
"""Up to so many sites are called by name; more are counted, and the chart names them."""


def number(value: float | None) -> str:
    """`0.912`, or – for a missing value."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def signed(value: float) -> str:
    """`+0.012` or `−0.012`; what rounds to nothing has no sign."""
    text = f"{value:+.3f}".replace("-", "−")
    return text if float(text[1:]) else text[1:]


def listed(names: Sequence[str]) -> str:
    """`A, B and C`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def gap(difference: Difference) -> str:
    """The difference and its interval in words."""
    s = difference.summary
    if s.low is None or s.high is None:
        return f"{signed(s.mean)} (no interval: {_patients(s.patients)})"
    return f"{signed(s.mean)} (95 % interval {signed(s.low)} to {signed(s.high)})"


def caveat(d: Difference) -> str:
    """What a comparison lacks because runs failed; empty if nothing."""
    if not d.incomplete:
        return ""
    return f" Incomplete: something failed for {listed(d.incomplete) if d.site is None else 'this site'}."


def judged(scores: Scores, method: str) -> list[str]:
    """How a given model does: the mean over the sites, and where it does worst and best."""
    total = scores.summary(method, None)
    found = {s: summary for s in scores.trained if (summary := scores.summary(method, s))}
    if total is None or not found:
        return ["No site has a test case with a score."]
    sure = ""
    if total.low is not None and total.high is not None:
        sure = f" (95 % interval {number(total.low)} to {number(total.high)})"
    where = f"On average over the {len(found)} sites" if len(found) > 1 else f"At {next(iter(found))}"
    people = f"{total.patients} patient{'s' if total.patients != 1 else ''}"
    said = [f"{where} its mean Dice on test scans is {number(total.mean)}{sure}, over {people}."]
    if len(found) > 1:
        low, high = (pick(found, key=lambda s: found[s].mean) for pick in (min, max))
        lowest, highest = number(found[low].mean), number(found[high].mean)
        said.append(f"It is lowest at {low} ({lowest}) and highest at {high} ({highest}).")
    return said


def against_local(scores: Scores, d: Difference) -> str:
    """The main comparison."""
    sites = len(scores.trained)
    count = f"{d.compared} of {sites}" if d.compared < sites else f"the {sites}"
    where = f"On average over {count} training sites" if sites > 1 else "At the one training site"
    whose = "the sites’ own local models" if sites > 1 else "the site’s own local model"
    text = (f"{where}, {scores.titles[d.first]} reached a mean Dice of {number(d.means[0])} on test scans and "
            f"{whose} {number(d.means[1])}: a difference of {gap(d)}.")  # fmt: skip
    text += " The interval contains 0, so chance could explain the difference." if d.sign == "open" else ""
    return text + _other_means(scores, d) + caveat(d)


def _other_means(scores: Scores, d: Difference) -> str:
    """Why the table has other means than this comparison; empty if it has the same."""
    shown = [scores.summary(method, None) for method in (d.first, d.second)]
    if d.incomplete or all(s and number(s.mean) == number(mean) for s, mean in zip(shown, d.means, strict=True)):
        return ""
    return (" In this comparison a structure that only one of the two rightly leaves out counts as 1 for it; "
            "the table leaves it out, so its means are slightly different.")  # fmt: skip


def by_site(sites: Sequence[Difference]) -> str:
    """Who gained, who lost, for whom it stays open; empty for a single site."""
    groups = {sign: [d for d in sites if d.sign == sign] for sign in ("better", "worse", "open", "few")}
    parts = []
    if better := groups["better"]:
        parts.append(f"federation was better at {_places(better, len(sites))}")
    if worse := groups["worse"]:
        parts.append(f"the local model was better at {_places(worse, len(sites), gaps=True)}")
    if unclear := groups["open"]:
        parts.append(f"no clear difference showed at {_places(unclear, len(sites))}")
    if few := groups["few"]:
        parts.append(
            f"at {_places(few, len(sites))} there are too few test patients to say (fewer than {MIN_PATIENTS})"
        )
    text = "; ".join(parts)
    return f"Site by site: {text}." if len(sites) > 1 else ""


def abroad(scores: Scores, d: Difference) -> str:
    """The training sites' models at each other's scans: what a patient who was scanned elsewhere would get."""
    text = (f"Away from home the local models reached {number(d.means[1])} on average, {scores.titles[d.first]} at the "
            f"same scans {number(d.means[0])}: {gap(d)}")  # fmt: skip
    return text + (", no clear difference." if d.sign == "open" else ".") + caveat(d)


def unseen(scores: Scores, d: Difference) -> str:
    """A site that took no part in training: does the model travel?"""
    text = (f"{d.site} took no part in training. There {scores.titles[d.first]} reached {number(d.means[0])}; "
            f"the other sites’ local models reached {number(d.means[1])} on average: {gap(d)}")  # fmt: skip
    return text + (", no clear difference." if d.sign == "open" else ".") + caveat(d)


def left_out(scores: Scores, d: Difference) -> str:
    """What the model is worth to a hospital that did not help to train it, measured at those that did."""
    text = (f"Trained without a site, each in turn, and tested there, {scores.titles[d.first]} reached "
            f"{number(d.means[1])}; with the site in the training {number(d.means[0])}. What taking part "
            f"gives: {gap(d)}")  # fmt: skip
    return text + (", no clear difference." if d.sign == "open" else ".") + caveat(d)


def against_pooled(scores: Scores, d: Difference) -> str:
    """What moving all scans to one place would have given: the reference, not an option."""
    text = (f"With all training scans in one place ({scores.titles[d.second]}) the same net reached "
            f"{number(d.means[1])}. Federation against that: {gap(d)}")  # fmt: skip
    return text + {"better": ", so federation was better even than that.", "worse": ": pooling was better.",
                   "open": ", no clear difference.", "few": "."}[d.sign] + caveat(d)  # fmt: skip


def against_other(scores: Scores, d: Difference) -> str:
    """Another baseline, such as the consensus of finished local models."""
    text = f"Against “{scores.titles[d.second]}”, which reached {number(d.means[1])}, the difference is {gap(d)}"
    return text + {"better": ".", "worse": f": {scores.titles[d.second]} was better.",
                   "open": ", no clear difference.", "few": "."}[d.sign] + caveat(d)  # fmt: skip


def seeds(d: Difference, number_of_seeds: int) -> str:
    """How much the answer depends on the training's own chance."""
    if number_of_seeds < 2:
        return "Everything was trained once (one seed): how far another training run would differ is not known."
    values = list(d.summary.seeds.values())
    if len(values) < 2:
        return ""
    count = sum(v > 0 for v in values)
    ahead = {0: "none", len(values): "all"}.get(count, str(count))
    some = f" (of the {len(values)} that are complete)" if len(values) < number_of_seeds else ""
    return (f"Training was repeated with {number_of_seeds} seeds on the same split of patients; the difference to "
            f"local lay between {signed(min(values))} and {signed(max(values))}, with federation ahead in {ahead} "
            f"of them{some}. That is training’s own chance; the intervals speak about patients.")  # fmt: skip


def selection(scores: Scores, federated: str, why: str, candidates: int) -> str:
    """How the method that stands for federation was chosen (`why`: see `verdict.choose`); empty if nothing was."""
    name = scores.titles[federated]
    if why == "validation":
        text = (f"{name} stands for federation: of {candidates} federated methods it was the best on the validation "
                "scans, before any test scan was read.")  # fmt: skip
        return text if candidates > 1 else ""
    text = "No validation case could count: every method was tested after its last round"
    reason = {"own": "it is the study’s own strategy", "first": "it is the first that was compared"}
    return f"{text}, and {name} stands for federation because {reason[why]}." if candidates > 1 else f"{text}."


def failed(scores: Scores) -> list[str]:
    """One line per failure; the same one under several seeds is told once."""
    seeds: dict[tuple[str, str, str | None, str], list[int]] = {}
    for f in scores.failures:
        seeds.setdefault((f.method, f.trained_on, f.site, f.why), []).append(f.seed)
    return [_failed(scores, Failure(0, *what), found) for what, found in seeds.items()]


def _failed(scores: Scores, f: Failure, seeds: Sequence[int]) -> str:
    name = scores.titles.get(f.method, f.method)
    name += "" if f.trained_on == EVERYONE else f" at site {f.trained_on}"
    what = f"has no final test at {f.site}"
    if f.site is None:
        what = "is incomplete" if scores.tested(f.method, f.trained_on, seeds) else "failed"
    under = f" (seed{'s' if len(seeds) > 1 else ''} {listed([str(s) for s in seeds])})" if len(scores.seeds) > 1 else ""
    return f"{name} {what}{under}: {f.why.rstrip('.')}."


def _places(sites: Sequence[Difference], total: int, gaps: bool = False) -> str:
    if len(sites) > NAMED or (len(sites) == total and total > 2):
        text = f"all {total} sites" if len(sites) == total else f"{len(sites)} of {total} sites"
        part = sum(bool(d.incomplete) for d in sites)
        return text + (f" ({part} of them incomplete)" if part else "")
    return listed([_place(d, gaps) for d in sites])


def _place(d: Difference, with_gap: bool) -> str:
    notes = [signed(d.summary.mean)] * with_gap + ["incomplete"] * bool(d.incomplete)
    return f"{d.site} ({', '.join(notes)})" if notes else str(d.site)


def _patients(n: int) -> str:
    return f"only {n} patient{'s' if n != 1 else ''}"
