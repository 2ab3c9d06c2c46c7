"""What a site lets out whatever a study asks: refused before anything is trained, and written in the audit log."""

import json
import math
from pathlib import Path
from typing import Any

import grpc
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.evaluation import CaseResult, summary
from client.gates import gate_out
from client.handover.files import TASK, Ref
from client.policy import Policy
from client.work.audit import entries
from client.work.ledger import lines
from client.work.rehearsal import rehearse
from common import wire
from common.cli import run as fedscan
from common.errors import FedscanError, PolicyError, WireError
from common.nets import build_net
from common.study import Study
from common.uplink import Uplink
from common.wire import METRICS, Schema, Task
from tests.client.conftest import Hospital

BASE: dict[str, Any] = {"steps": 1, "batch": 1, "cases": 1, "small": 1}


def told(hospital: Hospital) -> list[tuple[str, str | None, str | None]]:
    log = hospital.home / "trainer" / "audit.jsonl"
    return [(e.event, e.code, e.reason) for e, _ in entries(log) if e.event not in ("begun", "started", "stopped")]


def untrained(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> float:
        raise AssertionError("it was trained")

    monkeypatch.setattr("client.app.train", never)


BEYOND: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "steps": ({"steps": 3}, {"training": {"steps": 2, "batch": 2, "rate": 0.01}}),
    "batch": ({"batch": 3}, {}),
    "rate": ({"rate": 0.001}, {}),
    "bytes": ({"bytes": 1000}, {}),
    "cases": ({"cases": 5}, {}),
    "one step on one case": ({"steps": 2}, {"training": {"steps": 1, "batch": 1, "rate": 0.01}}),
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_study_beyond_the_bounds_is_refused_and_audited(
    what: str, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds, changes = BEYOND[what]
    hospital.configure(policy=json.dumps({**BASE, **bounds}))
    untrained(hospital, monkeypatch)
    with hospital.trainer():
        last = hospital.ask(hospital.study(**changes))
        code = last.code
        if last.state == "done":  # seen when the cases were counted: the answer is a signed error
            assert last.reply is not None
            (line, _), *_ = lines(hospital.home / "trainer" / "egress.jsonl")
            code = line.error
            assert not line.arrays
    assert code == "E_POLICY"
    assert any(found == "E_POLICY" for _, found, _ in told(hospital))


def test_the_policy_that_nobody_wrote_protects(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a section `policy` a study of few steps on four cases is refused."""
    hospital.configure(policy="{}")
    untrained(hospital, monkeypatch)
    with hospital.trainer():
        assert hospital.ask(hospital.study()).code == "E_POLICY"
    assert told(hospital) == [("approved", None, None), ("refused", "E_POLICY", "steps")]


def test_a_change_of_the_policy_is_in_the_log_and_so_in_the_head(hospital: Hospital) -> None:
    log = hospital.home / "trainer" / "audit.jsonl"
    with hospital.trainer():
        hospital.ask(hospital.study(), 0, "join")
        hospital.configure(policy=json.dumps({**BASE, "small": 2}))
        hospital.ask(hospital.study(), 0, "join")
    found = [e.settings for e, _ in entries(log) if e.settings]
    assert len(found) == len(set(found)) == 2


def test_small_counts_and_their_scores_are_withheld() -> None:
    """Twenty cases, of which three have the second label: nobody can find its score from the other numbers either."""
    study = study_of(["liver", "tumour"])

    def case(i: int, *dice: float) -> CaseResult:
        return CaseResult(f"c{i}", f"p{i}", {"dice": dice, "hd95": tuple(10 * d for d in dice)})

    results = [case(i, 0.5, 0.9 if i < 3 else math.nan) for i in range(20)]
    without = [case(i, 0.5, math.nan) for i in range(20)]
    assert summary(results, study, 5) == summary(without, study)
    assert summary(results, study, 5)["cases.tumour"] == summary(results, study, 5)["dice.tumour"] == 0
    assert summary(results, study)["cases.tumour"] == 3
    assert summary(results, study, 5)["hd95.liver.told"] == 1
    assert summary(results, study, 5)["hd95.tumour.told"] == 0
    few = summary(results[:4], study, 5)
    assert set(few.values()) == {0.0}


def test_the_worst_case_is_told_only_where_the_policy_says_so() -> None:
    study = study_of(["liver"], spread="worst")
    with pytest.raises(PolicyError, match=r"evaluation\.spread: worst"):
        Policy().check_study(study, 0)
    Policy(spread="worst").check_study(study, 0)
    with pytest.raises(PolicyError, match=r"evaluation\.spread: quartiles"):
        Policy(spread="none").check_study(study_of(["liver"]), 0)
    results = [CaseResult(f"c{i}", f"p{i}", {"dice": (i / 20,), "hd95": (i / 2,)}) for i in range(1, 21)]
    told = {**summary(results, study, 5), "seconds": 0.0}
    assert Policy(spread="worst").fitting("evaluate", told, 0)["hd95.liver.worst"] == 10.0
    with pytest.raises(PolicyError, match="tells of the spread"):
        Policy().fitting("evaluate", told, 0)


def test_no_value_leaves_without_enough_cases_whatever_the_code_hands_over() -> None:
    told = {**summary([], study_of(["liver"]), 5), "seconds": 0.0}
    Policy().fitting("evaluate", told, 0)
    for key in ("dice.liver", "dice.liver.median", "hd95.liver", "hd95.liver.q75", "hd95.liver.told"):
        with pytest.raises(PolicyError, match="fewer than 5 cases"):
            Policy().fitting("evaluate", {**told, key: 0.5}, 0)
    with pytest.raises(PolicyError, match="fewer than 5 cases"):
        Policy().fitting("evaluate", {**told, "cases.liver": 9, "hd95.liver": 0.5}, 0)


def test_what_is_told_of_a_sites_own_model_is_held_by_the_same_bounds() -> None:
    own = {"num-examples": 6, "dice.liver": 0.81239, "cases.liver": 6, "chosen": 1, "judged": 7, "validation-local": 0}
    fine = {"num-examples": 5, "dice.liver": 0.5, "cases.liver": 5, **{f"own-{k}": v for k, v in own.items()}}
    policy = Policy(small=5, digits=3)
    assert policy.fitting("evaluate", fine, 0) == fine | {"own-dice.liver": 0.812}
    # What is withheld of the global model may be told of the chosen one, and the other way round: each has its counts.
    assert policy.fitting("evaluate", fine | {"dice.liver": 0, "cases.liver": 0}, 0)["own-dice.liver"] == 0.812
    for wrong in ({"own-judged": 4}, {"own-cases.liver": 4}, {"own-cases.liver": 0}, {"own-num-examples": 1}):
        with pytest.raises(PolicyError, match=r"policy: small"):
            policy.fitting("evaluate", fine | wrong, 0)


def test_too_few_cases_are_said_as_none() -> None:
    policy = Policy(cases=10, small=5, steps=10)
    counts = {"train": 12, "validation": 4, "test": 5, "patients": 21, "steps": 20}
    assert policy.counts(counts) == {**counts, "validation": 0}
    assert policy.counts({**counts, "train": 9}) == {**counts, "validation": 0, "train": 0, "steps": 0}
    assert policy.counts({**counts, "patients": 3})["patients"] == 0


def study_of(labels: list[str], **evaluation: Any) -> Study:
    return Study.model_validate(
        {
            "name": "policy", "data": {"labels": labels, "dimensions": 2}, "plan": {"patch": [16, 16]},
            "evaluation": evaluation,
            "net": {"name": "unet", "width": 4, "levels": 2}, "training": {"steps": 20},
        }
    )  # fmt: skip


# What a site tells of each label, WHAT.LABEL or WHAT.LABEL.MORE, unless the study asks for more or less.
MORE = ("q25", "median", "q75")


def per_label(labels: list[str]) -> set[str]:
    means = {f"{what}.{n}" for n in labels for what in ("dice", "cases", "hd95")}
    return (
        means
        | {f"{what}.{n}.{more}" for n in labels for what in ("dice", "hd95") for more in MORE}
        | {f"hd95.{n}.told" for n in labels}
    )


LABELS = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), min_size=1, max_size=4, unique=True).filter(
    lambda found: "background" not in found
)
NUMBER = st.one_of(st.integers(-5, 10**12), st.floats(), st.floats(0, 1))
KEY = st.one_of(
    st.sampled_from(["train", "patients", "num-examples", "steps", "loss", "seconds", "dice", "dice.case-7", "path"]),
    st.text(max_size=12),
)
POLICY = st.builds(
    Policy, steps=st.integers(1, 50), batch=st.integers(1, 4), cases=st.integers(1, 30), small=st.integers(1, 12),
    digits=st.one_of(st.none(), st.integers(0, 6)),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), labels=LABELS, policy=POLICY, kind=st.sampled_from(["join", "train", "evaluate"]))
def test_no_study_and_no_policy_let_a_key_out_that_is_not_listed(
    data: st.DataObject, labels: list[str], policy: Policy, kind: Any
) -> None:
    """Whatever the code behind the gate hands over, wrong keys and odd numbers with it."""
    study = study_of(labels)
    schema = Schema.of(study)
    task = Task(run="r", round=1, kind=kind, part="validation" if kind == "evaluate" else "train")
    allowed = {
        "join": {"train", "validation", "test", "patients", "steps"},
        "train": {"num-examples", "steps", "loss", "seconds"},
        "evaluate": {"num-examples", "dice", "seconds", *per_label(labels)},
    }[kind]
    metrics = {key: data.draw(NUMBER) for key in sorted(allowed)}
    for key in data.draw(st.lists(KEY, max_size=2)):
        metrics[key] = data.draw(NUMBER)
    wire.become(1, 1)
    asked = wire.instruction(1, study, task, None, None)
    wire.stamp(asked)
    flat = schema.pack(build_net(study).state_dict())
    reply: Message = {
        "join": lambda: wire.site_reply(asked, "oslo", metrics),
        "train": lambda: wire.train_reply(asked, flat, metrics),
        "evaluate": lambda: wire.metrics_reply(asked, metrics),
    }[kind]()
    if data.draw(st.booleans()):
        reply.content["notes"] = ConfigRecord({"patient": "DOE^JOHN"})
    try:
        left = gate_out(Uplink(schema), study, task, "oslo", reply, policy)
    except (WireError, PolicyError):
        return
    found = left.content[METRICS]
    assert isinstance(found, MetricRecord)
    assert set(found) == allowed
    assert set(left.content) <= {"arrays", "metrics", "task"}
    for key, value in found.items():
        assert isinstance(value, int | float)
        assert math.isfinite(value)
        if key in ("train", "validation", "test", "patients", "num-examples") or key.startswith("cases."):
            assert value == 0 or value >= policy.small
        if key.startswith("dice") and policy.digits is not None:
            assert value == round(value, policy.digits)


def test_a_metric_that_is_not_in_the_schema_is_refused_and_audited(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fault in the training code would make it."""
    train_reply = wire.train_reply

    def chatty(message: Any, flat: Any, metrics: Any) -> Message:
        return train_reply(message, flat, {**metrics, "dice.DOE-JOHN": 0.5})

    monkeypatch.setattr("common.wire.train_reply", chatty)
    with hospital.trainer():
        assert hospital.ask(hospital.study()).state == "done"
    ((line, _),) = lines(hospital.home / "trainer" / "egress.jsonl")
    assert (line.error, line.metrics, line.arrays) == ("E_WIRE", None, {})
    assert ("failed", "E_WIRE", None) in told(hospital)
    assert b"DOE" not in (hospital.mailbox.folder / "reply.safetensors").read_bytes()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a task that nobody signed": (b"{}", "E_SIGNATURE"),
    "no json": (b"\x00\xff", "E_SIGNATURE"),
    "deep": (b'{"study":' * 50_000, "E_SIGNATURE"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_hostile_link_hands_over_is_refused_and_audited(what: str, hospital: Hospital) -> None:
    raw, code = HOSTILE[what]
    with hospital.trainer():
        ref: Ref | None
        try:
            ref = hospital.mailbox.put_task(raw, {})
        except UnicodeDecodeError:
            hospital.mailbox.path(TASK).write_bytes(raw * 100)
            ref, code = hospital.mailbox.find(TASK), "E_WIRE"
        assert ref is not None
        for _ in range(50):
            (last,) = hospital.client.work(ref)
            assert (last.state, last.code) == ("refused", code)
    found = [t for t in told(hospital) if t[0] == "refused"]
    assert [c for _, c, _ in found] == [code]  # once, however often: it is counted


def test_garbage_on_the_links_socket_is_audited(hospital: Hospital) -> None:
    with hospital.trainer(), grpc.insecure_channel(f"unix:{hospital.mailbox.socket}") as channel:
        answers = channel.unary_stream("/fedscan.Trainer/Work")(b"\x80\x04.")
        assert isinstance(answers.exception(), grpc.RpcError)
    assert ("refused", "E_WIRE", "socket") in told(hospital)


def test_a_dry_run_shows_what_would_leave_and_lets_nothing_out(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oracle is the real first round, from the weights that the study begins with: the same bytes."""
    study = hospital.study(strategy={"name": "fedavg"})
    before = sorted(p.name for p in hospital.mailbox.folder.iterdir())
    would = {line.kind: line for line in rehearse(hospital.home, study)}
    assert sorted(p.name for p in hospital.mailbox.folder.iterdir()) == before
    assert not (hospital.home / "trainer" / "egress.jsonl").exists()
    assert not list((hospital.home / "trainer").glob("dry-run*"))
    from common.seeds import derive

    flat = hospital.weights(study, derive(study.seed, "weights"))
    with hospital.trainer():
        hospital.ask(study, 0, "join")
        hospital.ask(study, 1, flat=flat, terms={})
    left = {line.kind: line for line, _ in lines(hospital.home / "trainer" / "egress.jsonl")}
    for kind in ("join", "train"):
        assert would[kind].arrays == left[kind].arrays
        assert {**(would[kind].metrics or {}), "seconds": 0} == {**(left[kind].metrics or {}), "seconds": 0}
        assert (would[kind].norm, would[kind].payload) == (left[kind].norm, left[kind].payload)
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(study.model_dump(mode="json")))
    capsys.readouterr()
    assert fedscan(["site", "egress", "show", "--home", str(hospital.home), "--dry-run", str(path)]) == 0
    assert would["train"].arrays["float32"].digest in capsys.readouterr().out
    hospital.configure(policy="{}")
    with pytest.raises(PolicyError):
        list(rehearse(hospital.home, study))


def test_codes_are_the_closed_list() -> None:
    assert PolicyError.code in wire.ERROR_CODES
    assert issubclass(PolicyError, FedscanError)
