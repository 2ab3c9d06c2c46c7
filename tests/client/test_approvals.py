"""What a site's people decide, as they do it: by the commands' own functions over the real operators' socket."""

import grp
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.approval import ApprovalRule
from client.desk.operator import RefusedError, ask
from client.desk.studies import moment
from client.desk.study_words import as_json, in_full, in_short, line
from client.handover.control import Progress
from client.handover.files import REPLY
from client.handover.mailbox import read_reply
from client.handover.operators import serve_operators
from client.handover.peer import Caller
from client.handover.study_operations import DECIDE, LIST, SHOW, Decide, Shown, Standing, Which
from client.work.approvals import Approvals, decision, same_person
from client.work.trainer import Trainer
from common.errors import ApprovalError, CheckpointError, StudyError
from common.manifests import RoundManifest, verified_reply
from common.rpc import Empty
from common.signing import read_signed
from common.study import Study

Hospital = Any
ANNA, BO, CLEO = (Caller(uid, name, frozenset()) for uid, name in ((1001, "anna"), (1002, "bo"), (1003, "cleo")))


@contextmanager
def deciding(hospital: Hospital, approval: str = "{}", **site: str) -> Iterator[Trainer]:
    """The trainer with both of its sockets, of a site that asks its people."""
    hospital.configure(approval=approval, **site)
    with hospital.trainer() as trainer, serve_operators(hospital.home, None, trainer.operations()):
        yield trainer


def decide(hospital: Hospital, study: Study, what: Any, **limits: Any) -> Standing:
    return ask(hospital.home, DECIDE, Decide(study=study.digest(), what=what, **limits))


def shown(hospital: Hospital, study: str) -> Shown:
    return ask(hospital.home, SHOW, Which(study=study))


def code(progress: Progress) -> str | None:
    return progress.code if progress.state == "refused" else None


def error_in(hospital: Hospital, study: Study, progress: Progress, number: int = 0, kind: Any = "join") -> str:
    """The code that the site signed, its signature verified as the coordinator does it."""
    assert progress.reply is not None
    header = read_reply(hospital.mailbox, progress.reply).header
    flat = None if kind == "join" else hospital.weights(study)
    body = hospital.assignment(study, number, kind, flat=flat).manifest.body
    manifest = RoundManifest.model_validate_json(body)
    key = hospital.reply_key.public_key()
    return str(verified_reply(read_signed(header), key, hospital.coordinator, "oslo", manifest).error)


def test_a_new_study_waits_and_says_so_signed(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital) as trainer:
        asked = hospital.ask(study, 0, "join")
        assert (asked.state, asked.code) == ("refused", "E_APPROVAL_WAITING")
        assert error_in(hospital, study, asked) == "E_APPROVAL_WAITING"
        (found,) = ask(hospital.home, LIST, Empty()).studies
        assert (found.approval.study, found.state, found.missing) == (study.digest(), "waiting", 1)
        assert trainer.status().waiting == 1
        assert not (hospital.home / "cache").exists()
        assert not (hospital.home / "trainer" / "accepted.json").exists()
        now = decide(hospital, study, "approve", why="the ethics board said yes")
        said = now.approval.decisions[-1]
        assert (now.state, said.who, said.uid) == ("approved", pwd.getpwuid(os.getuid()).pw_name, os.getuid())
        assert hospital.ask(study, 0, "join").state == "done"
    # A restart changes nothing.
    with deciding(hospital):
        assert hospital.ask(study, 1).state == "done"


def test_a_study_that_the_policy_refuses_is_seen_with_the_reason(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital, policy="{cases: 1, steps: 1000, small: 1}"):
        assert hospital.ask(study, 0, "join").code == "E_POLICY"
        (found,) = ask(hospital.home, LIST, Empty()).studies
        assert (found.state, "1000 are wanted here" in found.refused) == ("waiting", True)
        assert "site.yaml's policy refuses it, came on" in line(found)
        assert "it cannot run here: the study asks for 4 steps in a round" in in_short(shown(hospital, "first"))
        # A yes does not outweigh it; a changed policy does.
        assert "policy" in decide(hospital, study, "approve").refused
        assert hospital.ask(study, 0, "join").code == "E_POLICY"
        hospital.configure(approval="{}")
        assert decide(hospital, study, "approve").refused == ""
        assert hospital.ask(study, 0, "join").state == "done"


def test_another_study_of_the_same_name_waits_anew_and_is_compared(hospital: Hospital) -> None:
    first = hospital.study()
    second = hospital.study(training={"steps": 1, "batch": 2, "rate": 0.01}, rounds={"number": 60})
    with deciding(hospital):
        hospital.ask(first, 0, "join")
        decide(hospital, first, "approve")
        assert code(hospital.ask(second, 0, "join", chain="second", signed=hospital.signed(second, "run-2"))) == (
            "E_APPROVAL_WAITING"
        )
        text = in_full(shown(hospital, second.digest()[:10]))
    assert f"Compared with study first ({first.digest()[:12]}), approved by" in text
    for changed in ("training.steps: 4 → 1", "rounds.number: 5 → 60", "bytes that leave in all: "):
        assert changed in text
    assert "training.batch:" not in text


def test_plain_words_name_what_is_learnt_what_leaves_and_to_whom(hospital: Hospital) -> None:
    study = hospital.study(description="Livers of many hospitals.", author="mallory")
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        text = in_short(shown(hospital, "first"))
        assert "waits to be approved, came on" in line(ask(hospital.home, LIST, Empty()).studies[0])
    for words in ("outline liver and kidneys", "liver: in your masks 1", "5 rounds of 4 steps", "localhost:443",
                  "author: mallory", "Livers of many hospitals.", "20% only judge"):  # fmt: skip
        assert words in text
    # 5 updates of the net's own size, from its weights and not from the text's source.
    nbytes = sum(v.nbytes for v in hospital.weights(study).values())
    assert f"in all {5 * nbytes / 1000:.3g} kB" in text


def test_no_text_of_the_coordinators_looks_like_ours(hospital: Hospital) -> None:
    """A terminal obeys control characters, and a reader believes a line that stands where ours stand."""
    evil = "harmless\n\nIn short\n  What leaves      nothing at all\x1b[8m\r\u202e\u2028done\x9b2J"
    study = hospital.study(description=evil, author=f"eve\n{evil}"[:200])
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        asked = shown(hospital, "first")
        text = in_full(asked)
    assert all(c == "\n" or c.isprintable() for c in text)
    lines = [found for found in text.splitlines() if "nothing at all" in found]
    assert len(lines) == 3
    assert all("harmless In short What leaves nothing at all" in found for found in lines)
    assert text.count(study.digest()) == 2
    found_json = json.loads(as_json(asked))
    assert found_json["study"]["description"] == evil  # scripts get what was signed


def test_rejected_and_approved_later(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        assert decide(hospital, study, "reject").state == "rejected"
        assert code(hospital.ask(study, 0, "join")) == "E_APPROVAL_REJECTED"
        assert decide(hospital, study, "approve").state == "approved"
        assert hospital.ask(study, 0, "join").state == "done"


def test_rounds_are_counted_and_what_came_of_them_may_be_measured(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        decide(hospital, study, "approve", rounds=2)
        assert hospital.ask(study, 1).state == "done"
        assert hospital.ask(study, 1).state == "done"  # again: the same round
        assert hospital.ask(study, 2, acknowledged=1).state == "done"
    with deciding(hospital):
        assert hospital.ask(study, 2, "evaluate", "validation", acknowledged=2).state == "done"
        assert code(hospital.ask(study, 3, acknowledged=2)) == "E_APPROVAL_EXPIRED"
        assert code(hospital.ask(study, 0, "join")) == "E_APPROVAL_EXPIRED"
        decide(hospital, study, "approve", rounds=1)
        assert hospital.ask(study, 3, acknowledged=2).state == "done"


def test_measuring_only(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        decide(hospital, study, "approve", purpose="evaluate")
        assert hospital.ask(study, 0, "join").state == "done"
        assert code(hospital.ask(study, 1)) == "E_APPROVAL_PURPOSE"
        assert hospital.ask(study, 1, "evaluate", "validation").state == "done"


def test_a_date_that_passes_stops_the_work_in_progress(hospital: Hospital) -> None:
    study = hospital.study(training={"steps": 20_000, "batch": 2, "rate": 0.001})
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        decide(hospital, study, "approve", until=datetime.now(UTC) + timedelta(seconds=12))
        started = time.monotonic()
        last = hospital.ask(study, 1)
        assert time.monotonic() - started < 60
        assert code(last) == "E_APPROVAL_EXPIRED"
        assert last.done < last.of or last.of == 0
        assert not (hospital.mailbox.folder / REPLY).exists()
        assert ask(hospital.home, LIST, Empty()).studies[0].state == "expired"


def test_withdrawn_in_mid_round_leaves_nothing_behind(hospital: Hospital) -> None:
    study = hospital.study(training={"steps": 20_000, "batch": 2, "rate": 0.001})
    short = hospital.study("short")
    state = hospital.home / "trainer" / "runs" / "state"
    with deciding(hospital):
        for one, run in ((study, "run-1"), (short, "run-2")):
            hospital.ask(one, 0, "join", chain=run, signed=hospital.signed(one, run))
            decide(hospital, one, "approve")
        assert hospital.ask(short, 1, chain="run-2", signed=hospital.signed(short, "run-2")).state == "done"
        later = hospital.signed(study, "run-1", issued=datetime.now(UTC) + timedelta(seconds=5))
        messages = hospital.client.work(hospital.put(study, 1, chain="run-1", signed=later))
        next(m for m in messages if m.done > 2)
        decide(hospital, study, "withdraw")
        start = time.monotonic()
        last = list(messages)[-1]
        assert time.monotonic() - start < 10
        assert code(last) == "E_APPROVAL_WITHDRAWN"
        assert last.reply is not None
        end = time.monotonic() + 10
        while (state / "run-1").exists() or (hospital.home / "trainer" / "midround.safetensors").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        # The other study's state and its reply, which may still be asked for, are untouched.
        assert list((state / "run-2").iterdir())
        assert (hospital.mailbox.folder / REPLY).exists()
        decide(hospital, short, "withdraw")
        assert not (hospital.mailbox.folder / REPLY).exists()
        with pytest.raises(RefusedError, match="nothing to withdraw"):
            decide(hospital, short, "withdraw")


def test_a_withdrawal_that_a_crash_followed_is_carried_out_at_the_next_start(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital) as trainer:
        hospital.ask(study, 0, "join")
        decide(hospital, study, "approve")
        assert hospital.ask(study, 1).state == "done"
        approval = trainer.approvals.find("first")
        trainer.approvals.decide(approval, decision("withdraw", ANNA), "")  # and no more
    state = hospital.home / "trainer" / "runs" / "state" / "run-1"
    assert state.exists()
    with deciding(hospital):
        end = time.monotonic() + 10
        while state.exists() or (hospital.mailbox.folder / REPLY).exists():
            assert time.monotonic() < end
            time.sleep(0.05)


def test_limits_that_make_no_sense_are_refused(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        with pytest.raises(RefusedError, match="over already"):
            decide(hospital, study, "approve", until=datetime(2020, 1, 1, tzinfo=UTC))
        with pytest.raises(RefusedError, match="limits are for an approval"):
            decide(hospital, study, "reject", rounds=3)
        with pytest.raises(RefusedError, match="no study liver came"):
            shown(hospital, "liver")


def test_the_author_cannot_approve(hospital: Hospital) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    study = hospital.study(author=f"{me.upper()}@university.example")
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        with pytest.raises(RefusedError, match="author"):
            decide(hospital, study, "approve")
        assert code(hospital.ask(study, 0, "join")) == "E_APPROVAL_WAITING"
        assert decide(hospital, study, "reject").state == "rejected"  # saying no is open to everyone


@pytest.mark.parametrize(
    ("author", "user", "same"),
    [("anna", "anna", True), (" Anna ", "anna", True), ("anna@x.org", "anna", True), ("", "anna", False),
     ("anna", "bo", False), ("anna b", "anna", False), ("", "", False)],
)  # fmt: skip
def test_same_person(author: str, user: str, same: bool) -> None:
    assert same_person(author, user) is same


def test_by_the_rule_until_it_or_somebody_says_no(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital, "{rule: signer, rounds: 1}"):
        assert hospital.ask(study, 0, "join").state == "done"
        assert hospital.ask(study, 1).state == "done"
        assert code(hospital.ask(study, 2, acknowledged=1)) == "E_APPROVAL_EXPIRED"
        hospital.configure(approval="{rule: signer}")
        assert hospital.ask(study, 2, acknowledged=1).state == "done"
        hospital.configure(approval="{}")
        assert code(hospital.ask(study, 3, acknowledged=2)) == "E_APPROVAL_WAITING"
        hospital.configure(approval="{rule: signer}")
        decide(hospital, study, "reject")
        assert code(hospital.ask(study, 3, acknowledged=2)) == "E_APPROVAL_REJECTED"


def kept(folder: Path, study: Study, hospital: Hospital, rule: ApprovalRule) -> Approvals:
    approvals = Approvals(folder, lambda: rule)
    signed = hospital.signed(study)
    body = hospital.assignment(study, 0, "join", signed=signed).manifest.body
    with pytest.raises(ApprovalError):
        approvals.check(study, signed.study, RoundManifest.model_validate_json(body))
    return approvals


def test_two_approvers_are_two_people_and_the_narrower_limits_hold(hospital: Hospital, tmp_path: Path) -> None:
    study, two = hospital.study(author="cleo"), ApprovalRule(approvers=2)
    folder = tmp_path / "approvals"
    approvals = kept(folder, study, hospital, two)
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)

    def say(who: Caller, what: str = "approve", **limits: Any) -> str:
        return approvals.decide(approvals.find("first"), decision(what, who, **limits), "cleo")

    assert say(ANNA, rounds=3) == "waiting"
    assert say(ANNA, rounds=9) == "waiting"  # the same person twice
    with pytest.raises(ApprovalError, match="author"):
        say(CLEO)
    assert say(BO, until=soon, rounds=20, purpose="evaluate") == "approved"
    limits = approvals.find("first").limits(two)
    assert limits is not None
    assert (limits.until, limits.rounds, limits.purpose) == (soon, 9, "evaluate")
    assert say(CLEO, "withdraw") == "withdrawn"  # anyone may stop it
    assert say(BO) == "waiting"
    assert say(ANNA) == "approved"
    assert Approvals(folder, lambda: two).find("first") == approvals.find("first")


def test_of_two_approvers_none_lengthens_the_rounds_of_the_other(hospital: Hospital, tmp_path: Path) -> None:
    study, two = hospital.study(), ApprovalRule(approvers=2)
    approvals = kept(tmp_path / "approvals", study, hospital, two)
    signed = hospital.signed(study)

    def round_done(number: int) -> None:
        assignment = hospital.assignment(study, number, flat=hospital.weights(study), chain="more", signed=signed)
        manifest = RoundManifest.model_validate_json(assignment.manifest.body)
        approvals.check(study, signed.study, manifest)
        approvals.begun(manifest)

    def say(who: Caller, rounds: int) -> None:
        approvals.decide(approvals.find("first"), decision("approve", who, rounds=rounds), "")

    say(ANNA, 2)
    say(BO, 9)
    round_done(1)
    round_done(2)
    say(BO, 9)
    with pytest.raises(ApprovalError, match="for 2 rounds, which are over"):
        round_done(3)
    say(ANNA, 1)
    round_done(3)
    with pytest.raises(ApprovalError, match="for 1 rounds, which are over"):
        round_done(4)


def test_one_approval_is_not_enough_once_two_are_wanted(hospital: Hospital, tmp_path: Path) -> None:
    study = hospital.study()
    approvals = kept(tmp_path / "approvals", study, hospital, ApprovalRule())
    assert approvals.decide(approvals.find("first"), decision("approve", ANNA), "") == "approved"
    assert Approvals(tmp_path / "approvals", lambda: ApprovalRule(approvers=2)).states() == {
        study.digest(): "waiting"
    }  # fmt: skip


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-2]),
        lambda path: path.chmod(0o666),
        lambda path: path.rename(path.with_name("0" * 64 + ".json")),
        lambda path: (path.rename(path.with_name("kept")), path.symlink_to(path.with_name("kept"))),
        pytest.param(
            lambda path: os.chown(path, 12345, -1),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
    ],
    ids=["cut", "open to all", "another name", "link", "another user's"],
)
def test_a_file_that_is_not_the_trainers_own_stops_it(hospital: Hospital, tmp_path: Path, spoil: Any) -> None:
    study = hospital.study()
    kept(tmp_path / "approvals", study, hospital, ApprovalRule())
    spoil(tmp_path / "approvals" / f"{study.digest()}.json")
    with pytest.raises(CheckpointError, match="damaged, or not the trainer's own"):
        Approvals(tmp_path / "approvals", ApprovalRule)


HOSTILE = """
import os, sys
from pathlib import Path
from client.desk.operator import ask
from client.handover.study_operations import DECIDE, Decide
from common.errors import FedscanError
home, study = Path(sys.argv[1]), sys.argv[2]
uid, group = map(int, sys.argv[3:])
os.setgroups([group])
os.setgid(group)
os.setuid(uid)
folder = home / "trainer" / "approvals"
approval = folder / (study + ".json")
for attempt in (
    lambda: approval.write_bytes(b"{}"),
    lambda: approval.read_bytes(),
    lambda: approval.unlink(),
    lambda: (folder / ("0" * 64 + ".json")).write_bytes(b"{}"),
    lambda: folder.rename(folder.with_name("gone")),
    lambda: (home / "operators" / "trainer.sock").unlink(),
    lambda: (home / "shared" / ".held-reply.safetensors").read_bytes(),
    lambda: (home / "shared" / ".held-reply.safetensors").rename(home / "shared" / ".held-counts.safetensors"),
    lambda: (home / "shared" / "trainer.sock").unlink(),
    lambda: ask(home, DECIDE, Decide(study=study, what="approve")),
):
    try:
        attempt()
        print("done")
    except (PermissionError, FedscanError):
        print("refused")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the link's user")
def test_a_links_user_can_neither_write_an_approval_nor_ask_for_one(hospital: Hospital) -> None:
    """Trainer and link as two users, as every deployment but the trial has them; the link tries all it can."""
    study = hospital.study()
    link = pwd.getpwnam("mail")
    for folder in (hospital.home, *hospital.home.parents[:4]):
        if len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o055)
    group = grp.getgrnam("bin").gr_gid
    (hospital.home / "link").mkdir()
    os.chown(hospital.home / "link", link.pw_uid, group)
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        os.chown(hospital.mailbox.folder, -1, group)
        hospital.mailbox.hold_reply(b"{}", None, {})
        before = {p: p.read_bytes() for p in (hospital.home / "trainer").rglob("*") if p.is_file()}
        command = [sys.executable, "-c", HOSTILE, *map(str, (hospital.home, study.digest(), link.pw_uid, group))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.stdout.split(), done.stderr) == (["refused"] * 10, "")
        assert {p: p.read_bytes() for p in (hospital.home / "trainer").rglob("*") if p.is_file()} == before
        assert code(hospital.ask(study, 0, "join")) == "E_APPROVAL_WAITING"


def test_what_the_link_may_say_decides_nothing(hospital: Hospital) -> None:
    """The link's own socket knows no such call, whoever is asked."""
    import grpc

    from common.rpc import RpcClient

    with deciding(hospital), RpcClient(hospital.mailbox.socket, "fedscan.Trainer") as client:
        for method in ("study.decide", "Decide", "Approve"):
            with pytest.raises(grpc.RpcError) as refused:
                client.call(method, Decide(study="0" * 64, what="approve"), Standing, 10)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_moments() -> None:
    assert moment("2026-12-31").astimezone().isoformat()[:19] == "2026-12-31T23:59:59"
    assert moment("2026-12-31T18:00").astimezone().isoformat()[:16] == "2026-12-31T18:00"
    with pytest.raises(StudyError, match="write a date"):
        moment("next year")


def test_the_answers_are_json_for_scripts(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital):
        hospital.ask(study, 0, "join")
        found = json.loads(as_json(shown(hospital, "first")))
    assert (found["standing"]["state"], found["study"]["name"], found["before"]) == ("waiting", "first", None)
    assert found["facts"]["digest"] == study.digest()
