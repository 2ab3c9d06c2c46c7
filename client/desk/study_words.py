"""A study in plain words for those who must decide on it: what is learnt, how long, what leaves, to whom."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from client.handover.study_operations import Shown, Standing
from client.work.approval_record import Approval, Decision
from common.errors import StudyError
from common.section import AT_SITE
from common.study import Study
from common.study_explain import facts, in_bytes, words

_STATES = {
    "waiting": "waits to be approved",
    "approved": "approved",
    "rejected": "rejected",
    "withdrawn": "withdrawn",
    "expired": "its approval is over",
}
_SAID = {"approve": "approved", "reject": "rejected", "withdraw": "withdrawn"}


def study_of(approval: Approval) -> Study:
    """The study that was signed; raises StudyError where this version cannot read it."""
    return _study(approval, json.loads(approval.signed.body))


def to_be_read(approval: Approval) -> Study:
    """The same for people's eyes: each text of the coordinator's on one line, so that none can look like ours."""
    return _study(approval, _plain(json.loads(approval.signed.body)))


def line(standing: Standing) -> str:
    """One line: name, digest, how it stands and by whom."""
    approval = standing.approval
    text = f"{approval.name}  {approval.study[:12]}  {_state(standing)}"
    text += "; site.yaml's policy refuses it" if standing.refused else ""
    last = approval.decisions[-1] if approval.decisions else None
    if last is None:
        by = " (by the rule of site.yaml)" if standing.state == "approved" else ""
        return f"{text}{by}, came on {_day(approval.seen)}"
    return f"{text}, {_said(last)}"


def as_json(shown: Shown) -> str:
    """All of it for scripts."""
    study = study_of(shown.standing.approval)
    before = study_of(shown.before) if shown.before else None
    return json.dumps(
        {
            "standing": shown.standing.model_dump(mode="json", exclude={"approval": {"signed"}}),
            "study": study.model_dump(mode="json"), "facts": facts(study), "site": shown.site,
            "coordinator": shown.coordinator, "key": shown.key, "labels": shown.labels,
            "before": shown.before.study if shown.before else None,
            "changes": [list(c) for c in changes(before, study)] if before else None,
        },
        indent=1, ensure_ascii=False,
    )  # fmt: skip


def in_full(shown: Shown) -> str:
    """Everything: in short, what changed, and each choice of the study."""
    study = to_be_read(shown.standing.approval)
    known = facts(study) | {"digest": shown.standing.approval.study}
    parts = [in_short(shown), "\n".join(_compared(shown.before, study)), words(study, known)]
    return "\n\n".join(parts)


def in_short(shown: Shown) -> str:
    """What somebody who writes no programs needs to know."""
    return "\n".join(_short(shown))


def _short(shown: Shown) -> Iterator[str]:
    approval = shown.standing.approval
    study = to_be_read(approval)
    known = facts(study)
    yield f"Study {study.name} wants to use scans of {shown.site}: it {_state(shown.standing)}"
    yield from (f"  {_said(d)}" for d in approval.decisions)
    if shown.standing.refused:
        yield f"  it cannot run here: {shown.standing.refused}"
    if study.description:
        yield f"  it says of itself: {study.description}"
    yield f"  author: {study.author or 'not said'}; it came on {_day(approval.seen)}; digest {approval.study}"
    yield ""
    yield "In short"
    kind = f"{'pictures' if study.data.dimensions == 2 else 'scans'} ({_and(study.data.channels)})"
    does = "What is learnt   a program learns" if study.trains else "What is judged   a program that has learnt"
    yield f"  {does} to outline {_and(study.data.labels)} in {kind}"
    yield "  From what        the scans that site.yaml names, and the outlines that experts drew in them"
    yield from (f"                   {label}: in your masks {value}" for label, value in shown.labels.items())
    if study.start is not None:
        yield f"  Given model      its file's SHA-256 begins with {study.start.sha256[:16]}; the coordinator has it"
    yield from _in_rounds(study, known) if study.trains else _judged(study)
    yield f"  To whom          the coordinator at {shown.coordinator} (its signing key: {shown.key[:16]})"
    if study.trains:
        yield "                   the mean of all hospitals' nets, and mean scores in the end, come to each of them"
        yield "  Keep in mind     such numbers can tell something of the scans behind them, most of all of few scans"
    else:
        yield "                   mean scores in the end, and the model, come to each hospital"
        yield "  Keep in mind     a mean over few scans tells of each of them"
    yield "  Change of mind   fedscan site study withdraw stops it at any time; what was sent cannot be called back"


def _judged(study: Study) -> Iterator[str]:
    """A study that trains nothing."""
    kept = study.evaluation
    yield f"                   {kept.validation + kept.test:.0%} of the patients judge it; nobody's scans teach it"
    yield "  How long         each of those scans is looked at once"
    yield "  What leaves      how many cases, mean scores, seconds. No weights, no scan, no outline, no name, no date"


def _in_rounds(study: Study, known: dict[str, Any]) -> Iterator[str]:
    rounds, sent = study.rounds.number, known["bytes_per_site"]["sent"]
    update, kept = in_bytes(known["update"]["bytes"]), study.evaluation
    yield (f"                   of the patients {kept.validation:.0%} only check each result, {kept.test:.0%} only "
           "judge the last one; the others teach")  # fmt: skip
    steps = known["steps_per_round"]
    each = f"{steps:,} steps" if steps else f"{known['epochs_per_round']} passes over the scans"
    yield f"  How long         {rounds} rounds of {each} each; a round takes minutes with a GPU, longer without"
    yield f"  What leaves      after each round the numbers of the trained net, {update}; in all {in_bytes(sent)}"
    yield "                   with them: how many cases, mean scores, seconds. No scan, no outline, no name, no date"


def _compared(before: Approval | None, study: Study) -> Iterator[str]:
    if before is None:
        yield "No other study was approved here before"
        return
    said = before.consents()[-1]
    found = list(changes(to_be_read(before), study))
    yield f"Compared with study {before.name} ({before.study[:12]}), {_said(said)}"
    if not found:
        yield "  nothing differs"
    for key, old, new in found:
        yield f"  {key}: {_value(old)} → {_value(new)}"


def changes(before: Study, study: Study) -> Iterator[tuple[str, Any, Any]]:
    """What differs: key, value then, value now, first what leaves; None for a key that only one of them has."""
    old, new = facts(before), facts(study)
    for what, name in (("bytes_per_site", "sent"), ("update", "bytes")):
        if old[what][name] != new[what][name]:
            title = "bytes that leave in all" if name == "sent" else "bytes that leave in a round"
            yield title, in_bytes(old[what][name]), in_bytes(new[what][name])
    for when in new["leaves"]:
        was, now = sorted(old["leaves"].get(when, {})), sorted(new["leaves"][when])
        if was != now:
            yield f"numbers that leave ({when})", was, now
    flat, wanted = (dict(_flat("", s.model_dump(mode="json"))) for s in (before, study))
    for key in dict.fromkeys([*wanted, *flat]):
        if flat.get(key) != wanted.get(key):
            yield key, flat.get(key), wanted.get(key)


def _study(approval: Approval, body: Any) -> Study:
    try:
        return Study.model_validate(body, context=AT_SITE)
    except (ValueError, ValidationError):
        raise StudyError(f"study {approval.name} cannot be read by this version of fedscan: update it") from None


def _plain(value: Any) -> Any:
    """The same without characters that move the cursor, hide text or begin a line."""
    if isinstance(value, str):
        return " ".join("".join(c if c.isprintable() else " " for c in value).split())
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, inner)
    else:
        yield prefix, value


def _state(standing: Standing) -> str:
    text, limits = _STATES[standing.state], standing.limits
    if standing.missing and standing.approval.consents():
        text += f" by {standing.missing} more"
    if limits is None or standing.state not in ("approved", "expired"):
        return text
    if limits.until is not None:
        text += f" {'until' if standing.state == 'approved' else 'since'} {_moment(limits.until)}"
    if limits.rounds is not None:
        text += f", {min(limits.used, limits.rounds)} of {limits.rounds} rounds used"
    return text + (", for measuring only" if limits.purpose == "evaluate" else "")


def _said(decision: Decision) -> str:
    text = f"{_SAID[decision.what]} by {decision.who} on {_moment(decision.when)}"
    return text + (f": {_plain(decision.why)}" if decision.why else "")


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    return ", ".join(map(str, value)) or "(none)" if isinstance(value, list) else str(value)


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _day(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
