"""What a site accepts of a run, and what it refuses: every message here is really signed."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from client.work.accepted import AcceptedRuns
from common.chain import CLOCK_SLACK, Accepted, Checker, KnownRuns
from common.errors import CheckpointError, SignatureError
from common.figures import Figures, Scores
from common.manifests import (
    Assignment,
    Counted,
    ReplyHeader,
    RoundManifest,
    arrays_sha256,
    metrics_sha256,
    read_assignment,
    read_signed_study,
    sign_reply,
    sign_study,
    verified_reply,
)
from common.signing import Kind, Refusal, key_id, key_text, sign, sites_of
from common.study import Study
from server.manifests import Manifests

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SIGNER, ROUND, STRANGER, REPLY = (Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in (1, 2, 3, 4))
COORDINATOR = key_id(SIGNER.public_key())
BASE, OTHER_BASE = sha256(b"base").hexdigest(), sha256(b"other").hexdigest()
ROSTER = {"oslo": Counted(), "bergen": Counted()}


def study(name: str = "small") -> Study:
    return Study.model_validate(
        {"name": name, "data": {"labels": ["a"]}, "plan": {"patch": [32, 32, 32]}, "training": {"steps": 2},
         "rounds": {"number": 5}}
    )  # fmt: skip


def signed_study(
    of: Study | None = None, run: str = "run-1", issued: datetime = NOW, days: int = 30,
    signer: Ed25519PrivateKey = SIGNER, coordinator: str = COORDINATOR, round_key: Ed25519PrivateKey = ROUND,
) -> Any:  # fmt: skip
    return sign_study(
        signer, coordinator, of or study(), run, key_text(round_key.public_key()), issued, issued + timedelta(days=days)
    )


class World:
    """A coordinator's chain and a site that checks it; both keep what they know on disk only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accepted = AcceptedRuns(folder / "accepted.json")

    def chain(self, name: str = "chain", signed: Any = None) -> Manifests:
        return Manifests(
            self.folder / name, signed or signed_study(), COORDINATOR, key_text(SIGNER.public_key()), ROUND
        )

    def train(self, number: int, base: str = BASE, chain: str = "chain", **more: Any) -> Assignment:
        return self.chain(chain).issue(number, "train", "train", base, ROSTER, **more)

    def evaluate(self, number: int, part: Any = "validation", base: str = BASE) -> Assignment:
        return self.chain().issue(number, "evaluate", part, base, ROSTER)

    def take(self, assignment: Assignment, now: datetime = NOW, site: str = "oslo") -> Accepted:
        checker = Checker(site, SIGNER.public_key())
        found = checker.check(self.accepted.known(), read_assignment(assignment.canonical()), now)
        self.accepted.keep(found.known)
        return found

    def refuses(self, assignment: Assignment, now: datetime = NOW, site: str = "oslo") -> str:
        before = self.accepted.known()
        with pytest.raises(SignatureError) as caught:
            self.take(assignment, now, site)
        assert self.accepted.known() == before
        return caught.value.reason


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_whole_run_is_accepted(world: World) -> None:
    join = world.take(world.chain().issue(0, "join", "train", None, ROSTER))
    assert (join.study, join.again, join.manifest.sequence) == (study(), False, 1)
    for number in range(1, 6):
        assert not world.take(world.train(number, terms={"proximal": 0.5})).again
        assert not world.take(world.evaluate(number)).again
    # The final test is made with the weights of an earlier round.
    assert world.take(world.evaluate(3, "test")).manifest.task == "run-1/3/evaluate/test"


def test_a_task_that_comes_again_is_answered_again(world: World) -> None:
    first = world.train(1)
    assert not world.take(first).again
    assert world.take(first).again
    # A coordinator that was restarted asks under a later manifest, after joining anew: the task is the same.
    world.take(world.chain().issue(1, "join", "train", None, ROSTER))
    other_roster = {"oslo": Counted()}
    again = world.take(world.chain().issue(1, "train", "train", BASE, other_roster))
    assert again.again
    assert again.manifest.sequence == 3


def test_a_restarted_coordinator_sends_the_same_bytes(world: World) -> None:
    first = world.train(1)
    assert world.train(1) == first
    assert len(list((world.folder / "chain").iterdir())) == 1


def test_a_site_may_miss_rounds_and_join_late(world: World) -> None:
    world.take(world.train(1))
    for number in (2, 3):
        world.train(number)
    assert world.take(world.train(4)).manifest.sequence == 4
    late = World(world.folder / "late")
    late.take(world.train(5))


def figures(labels: int = 1, dice: float = 0.5) -> Figures:
    found = Scores(sites=2, cases=3, dice=dice, labels=(dice,) * labels)
    return Figures(round=1, rounds=5, sites=2, cases=9, test=found)


def test_the_result_comes_last_and_comes_again(world: World) -> None:
    world.take(world.train(1))
    result = world.chain().issue(1, "result", "train", BASE, ROSTER, figures=figures())
    found = world.take(result)
    assert (found.again, found.manifest.figures) == (False, figures())
    assert world.take(result).again
    assert world.refuses(world.train(5)) == Refusal.OLDER
    assert world.refuses(world.chain().issue(1, "result", "train", OTHER_BASE, ROSTER, figures=figures())) == (
        Refusal.FORK
    )
    assert world.refuses(world.chain().issue(1, "result", "train", BASE, ROSTER, figures=figures(dice=0.9))) == (
        Refusal.FORK
    )


def test_no_result_of_a_run_in_which_the_site_took_no_part(world: World) -> None:
    assert world.refuses(world.chain().issue(1, "result", "train", BASE, ROSTER, figures=figures())) == Refusal.TASK


def test_figures_of_other_labels_are_refused(world: World) -> None:
    world.take(world.train(1))
    assert world.refuses(world.chain().issue(1, "result", "train", BASE, ROSTER, figures=figures(2))) == Refusal.FORM


def test_figures_come_with_the_result_and_with_nothing_else(world: World) -> None:
    with pytest.raises(ValidationError, match="figures"):
        world.train(1, figures=figures())
    with pytest.raises(ValidationError, match="figures"):
        world.chain().issue(1, "result", "train", BASE, ROSTER)


def test_replays_and_older_rounds_are_refused(world: World) -> None:
    first, validation, second = world.train(1), world.evaluate(1), world.train(2)
    world.take(first)
    world.take(second)
    assert world.refuses(first) == Refusal.OLDER
    assert world.refuses(validation) == Refusal.OLDER
    # The same older round, put into a new manifest by the coordinator itself.
    assert world.refuses(world.train(1)) == Refusal.OLDER
    assert world.refuses(world.evaluate(1)) == Refusal.OLDER
    world.take(world.train(3))


def test_after_the_final_test_nothing_is_trained(world: World) -> None:
    world.take(world.train(5))
    world.take(world.evaluate(5, "test"))
    assert world.refuses(world.train(5)) == Refusal.OLDER
    assert world.refuses(world.evaluate(4, "test")) == Refusal.FORK


def test_the_same_task_from_another_base_or_on_other_terms_is_a_fork(world: World) -> None:
    world.take(world.train(1))
    assert world.refuses(world.train(1, OTHER_BASE)) == Refusal.FORK
    assert world.refuses(world.train(1, terms={"proximal": 1.0})) == Refusal.FORK


def test_a_run_that_was_forked_is_refused(world: World) -> None:
    world.take(world.train(1))
    # A coordinator put back from an old backup, or one with two faces: the same run, another history.
    assert world.refuses(world.train(1, OTHER_BASE, chain="other")) == Refusal.FORK
    assert world.refuses(world.train(2, chain="other")) == Refusal.FORK
    world.take(world.train(2))


def test_the_history_must_be_the_one_that_was_signed(world: World) -> None:
    for number in (1, 2):
        world.train(number)
    third = world.train(3)
    raw = bytearray(base64.b64decode(third.history))
    assert len(raw) == 64
    cases = {Refusal.FORM: [b"", raw[:32], raw + raw[:32], raw[:33]], Refusal.FORK: [raw[32:] + raw[:32]]}
    raw[0] ^= 1
    cases[Refusal.FORK].append(raw)
    for reason, histories in cases.items():
        for history in histories:
            text = base64.b64encode(bytes(history)).decode()
            assert world.refuses(third.model_copy(update={"history": text})) == reason
    assert world.refuses(third.model_copy(update={"history": "?"})) == Refusal.FORM
    world.take(third)


def test_a_run_may_not_change_its_study(world: World) -> None:
    world.take(world.train(1))
    other = world.chain("other", signed_study(study("other"))).issue(2, "train", "train", BASE, ROSTER)
    assert world.refuses(other) == Refusal.FORK


def test_an_older_order_of_the_run_is_refused(world: World) -> None:
    old, new = signed_study(), signed_study(issued=NOW + timedelta(days=1))
    world.take(world.chain(signed=new).issue(1, "train", "train", BASE, ROSTER))
    assert world.refuses(world.chain(signed=old).issue(2, "train", "train", BASE, ROSTER)) == Refusal.OLDER


def test_an_expired_order_is_refused(world: World) -> None:
    end = NOW + timedelta(days=30)
    assert world.refuses(world.train(1), end + CLOCK_SLACK + timedelta(seconds=1)) == Refusal.EXPIRED
    world.take(world.train(1), end + CLOCK_SLACK)
    # A wrong clock in the other direction stops nothing.
    world.take(world.train(2), NOW - timedelta(days=400))


def test_a_site_that_is_not_asked_refuses(world: World) -> None:
    assert world.refuses(world.train(1), site="trondheim") == Refusal.ROSTER
    world.take(world.train(1), site="bergen")


def manifest(**changes: Any) -> RoundManifest:
    from common.manifests import genesis

    fields = {"run": "run-1", "study": study().digest(), "sequence": 1, "round": 1, "kind": "train", "base": BASE,
              "previous": genesis("run-1", study().digest()).hex(), "roster": ROSTER}  # fmt: skip
    return RoundManifest(**{**fields, **changes})


def assignment(
    of: RoundManifest | bytes, key: Ed25519PrivateKey = ROUND, kind: Kind = Kind.MANIFEST, audience: str = "",
    studies: Any = None, order: Any = None,
) -> Assignment:  # fmt: skip
    body = of if isinstance(of, bytes) else of.canonical()
    both = studies or signed_study()
    signed = sign(key, kind, audience or sites_of(COORDINATOR), body)
    return Assignment(study=both.study, order=(order or both).order, manifest=signed, history="")


HOSTILE: dict[str, tuple[Callable[[], Assignment], Refusal]] = {
    "signed by a stranger": (lambda: assignment(manifest(), STRANGER), Refusal.KEY),
    "signed by the offline key itself": (lambda: assignment(manifest(), SIGNER), Refusal.KEY),
    "signed as an order": (lambda: assignment(manifest(), kind=Kind.ORDER), Refusal.KIND),
    "for another federation": (lambda: assignment(manifest(), audience=sites_of("b")), Refusal.AUDIENCE),
    "for the coordinator": (lambda: assignment(manifest(), audience=f"coordinator {COORDINATOR}"), Refusal.AUDIENCE),
    "another run than the order's": (lambda: assignment(manifest(run="run-2")), Refusal.RUN),
    "another study than the order's": (lambda: assignment(manifest(study=study("b").digest())), Refusal.STUDY),
    "more rounds than ordered": (lambda: assignment(manifest(round=6)), Refusal.ROUNDS),
    "a chain that begins elsewhere": (lambda: assignment(manifest(previous=BASE)), Refusal.FORK),
    "an unknown key": (lambda: assignment(manifest().canonical()[:-1] + b',"x":1}'), Refusal.FORM),
    "not canonical": (lambda: assignment(b" " + manifest().canonical()), Refusal.FORM),
    "not JSON": (lambda: assignment(b"run"), Refusal.FORM),
    "NaN in the terms": (lambda: assignment(manifest().canonical().replace(b'"terms":{}', b'"terms":{"mu":NaN}')),
                         Refusal.FORM),
    "an order for another study": (
        lambda: assignment(manifest(), order=signed_study(study("b"))), Refusal.STUDY),
    "an order by a stranger": (lambda: assignment(manifest(), order=signed_study(signer=STRANGER)), Refusal.KEY),
    "an order for other sites": (lambda: assignment(manifest(), order=signed_study(coordinator="b")), Refusal.AUDIENCE),
    "an order for another online key": (
        lambda: assignment(manifest(), order=signed_study(round_key=STRANGER)), Refusal.KEY),
    "a study by a stranger": (lambda: assignment(manifest(), studies=signed_study(signer=STRANGER)), Refusal.KEY),
    "study and order swapped": (
        lambda: assignment(manifest()).model_copy(update={"study": signed_study().order}), Refusal.KIND),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_assignments_are_refused_with_their_reason(case: str, world: World) -> None:
    made, reason = HOSTILE[case]
    assert world.refuses(made()) == reason


def test_the_control_of_the_hostile_table_is_accepted(world: World) -> None:
    world.take(assignment(manifest()))


@pytest.mark.parametrize("which", ["study", "order", "manifest"])
@pytest.mark.parametrize("change", [{"version": 2}, {"body": "{}"}])
def test_altered_and_other_versions_are_refused(which: str, change: dict[str, Any], world: World) -> None:
    good = assignment(manifest())
    altered = getattr(good, which).model_copy(update=change)
    reason = Refusal.VERSION if "version" in change else Refusal.SIGNATURE
    assert world.refuses(good.model_copy(update={which: altered})) == reason


def test_a_damaged_memory_stops_the_site(world: World) -> None:
    world.take(world.train(1))
    (world.folder / "accepted.json").write_bytes(b"{")
    with pytest.raises(CheckpointError):
        world.accepted.known()
    assert AcceptedRuns(world.folder / "none.json").known() == KnownRuns()


def test_a_coordinator_does_not_go_on_with_a_damaged_or_foreign_chain(world: World) -> None:
    for number in (1, 2):
        world.train(number)
    with pytest.raises(CheckpointError):
        world.chain(signed=signed_study(run="run-2"))
    with pytest.raises(CheckpointError):
        world.chain(signed=signed_study(round_key=STRANGER))
    path = world.folder / "chain" / "000001.json"
    whole = path.read_bytes()
    for damaged in (b"", whole[:-9], whole.replace(b"oslo", b"osla")):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            world.chain()
    path.unlink()
    with pytest.raises(CheckpointError):
        world.chain()


# Replies


def header(**changes: Any) -> ReplyHeader:
    asked = manifest()
    fields = {"run": "run-1", "study": asked.study, "site": "oslo", "task": asked.task, "manifest": asked.sha256(),
              "base": BASE, "payload": BASE, "metrics": BASE, "salt": "0" * 64, "software": "0.1.0"}  # fmt: skip
    return ReplyHeader(**{**fields, **changes})


def test_a_reply_to_the_task_is_read() -> None:
    signed = sign_reply(REPLY, COORDINATOR, header())
    assert verified_reply(signed, REPLY.public_key(), COORDINATOR, "oslo", manifest()) == header()
    error = header(payload=None, metrics=None, error="E_DATA")
    signed = sign_reply(REPLY, COORDINATOR, error)
    assert verified_reply(signed, REPLY.public_key(), COORDINATOR, "oslo", manifest()).error == "E_DATA"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run": "run-2"}, Refusal.RUN),
        ({"study": BASE}, Refusal.STUDY),
        ({"task": "run-1/2/train/train"}, Refusal.TASK),
        ({"base": OTHER_BASE}, Refusal.FORK),
        ({"site": "bergen"}, Refusal.ROSTER),
    ],
)
def test_a_reply_to_something_else_is_refused(changes: dict[str, Any], reason: str) -> None:
    signed = sign_reply(REPLY, COORDINATOR, header(**changes))
    with pytest.raises(SignatureError) as caught:
        verified_reply(signed, REPLY.public_key(), COORDINATOR, "oslo", manifest())
    assert caught.value.reason == reason


def test_a_reply_for_another_site_another_coordinator_or_by_another_key_is_refused() -> None:
    signed = sign_reply(REPLY, COORDINATOR, header())
    for key, coordinator, site, reason in (
        (STRANGER, COORDINATOR, "oslo", Refusal.KEY),
        (REPLY, "b", "oslo", Refusal.AUDIENCE),
        (REPLY, COORDINATOR, "bergen", Refusal.ROSTER),
    ):
        with pytest.raises(SignatureError) as caught:
            verified_reply(signed, key.public_key(), coordinator, site, manifest())
        assert caught.value.reason == reason


def test_a_flipped_field_of_a_reply_is_refused() -> None:
    signed = sign_reply(REPLY, COORDINATOR, header())
    for old, new in ((BASE, OTHER_BASE), ("oslo", "osla"), ("0.1.0", "0.1.1"), ("0" * 64, "1" * 64)):
        altered = signed.model_copy(update={"body": signed.body.replace(old, new)})
        with pytest.raises(SignatureError) as caught:
            verified_reply(altered, REPLY.public_key(), COORDINATOR, "oslo", manifest())
        assert caught.value.reason == Refusal.SIGNATURE


@pytest.mark.parametrize("changes", [{"error": "E_DATA"}, {"metrics": None}, {"metrics": None, "payload": None},
                                     {"metrics": None, "error": "/data/DOE^JOHN", "payload": None}])  # fmt: skip
def test_a_reply_is_an_answer_or_an_error_code(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        header(**changes)


def test_hashes_of_arrays_and_metrics_tell_them_apart() -> None:
    import numpy as np

    flat = {"float32": np.arange(4, dtype="<f4"), "int64": np.arange(2)}
    assert arrays_sha256(flat) == arrays_sha256(dict(reversed(flat.items())))
    others = [{"float32": flat["float32"]}, {**flat, "int64": flat["int64"] + 1}, {"int64": flat["int64"].astype("f4")}]
    assert len({arrays_sha256(o) for o in (flat, *others)}) == 4
    assert metrics_sha256({"a": 1.0, "b": 2}) == metrics_sha256({"b": 2, "a": 1.0})
    assert metrics_sha256({"a": 1.0}) != metrics_sha256({"a": 2.0})


def test_a_signed_study_is_read_back() -> None:
    signed = signed_study()
    assert read_signed_study(signed.canonical()) == signed
    with pytest.raises(SignatureError):
        read_signed_study(signed.canonical()[:-1])
