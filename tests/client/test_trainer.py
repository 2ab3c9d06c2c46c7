"""The trainer over its real socket, with really signed tasks and real scans.

The oracle of what it computes is the inline grid of a simulation over the same scans; of what it refuses, that nothing
was kept, trained or written.
"""

import json
import os
import stat
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client.app import make_app
from client.data.prepare import prepare
from client.device import pick_device
from client.handover.control import BEAT, Progress, TrainerBusyError, TrainerGoneError
from client.handover.files import COUNTS, REPLY, TASK, Ref, ReplyFile
from client.handover.mailbox import read_reply
from client.open_site import OpenSite, Workplace
from client.site import site_of_home
from client.work.audit import entries
from common import wire
from common.manifests import arrays_sha256, metrics_sha256, verified_manifest, verified_reply
from common.signing import Kind, Signed, key_text, read_signed, sign, sites_of
from common.study import Study
from common.wire import Task, Terms
from simulations.inline import FIRST_SITE, InlineGrid
from tests.client.conftest import put_reply

Hospital = Any


def inline(hospital: Hospital, study: Study, task: Task, folder: Path, seed: int = 1) -> Message:
    """The reply of the same site in a simulation."""
    config = site_of_home(hospital.home).model_copy(update={"name": "oslo"})
    site = OpenSite(
        config, folder, lambda s: prepare(s, config, cache=folder / "cache", home=folder),
        Workplace(pick_device("cpu")),
    )  # fmt: skip
    grid = InlineGrid(make_app(lambda context: site), 1)
    arrays = None if task.kind == "join" else wire.record(hospital.weights(study, seed))
    (reply,) = grid.send_and_receive([wire.instruction(FIRST_SITE, study, task, arrays, None)])
    return reply


def reply_of(hospital: Hospital, last: Progress) -> ReplyFile:
    assert (last.state, last.code) == ("done", None)
    assert last.reply is not None
    return read_reply(hospital.mailbox, last.reply)


def header_of(hospital: Hospital, reply: ReplyFile) -> Any:
    """The header, after checking its signature with the site's public key alone."""
    return json.loads(read_signed(reply.header).body)


def same_numbers(found: dict[str, float] | None, wanted: dict[str, Any]) -> bool:
    """All metrics but the time."""
    assert found is not None
    return {**found, "seconds": 0} == {**wanted, "seconds": 0}


def test_a_whole_round_as_in_a_simulation(hospital: Hospital, tmp_path: Path) -> None:
    study = hospital.study()
    with hospital.trainer() as trainer:
        joined = hospital.ask(study, 0, "join")
        assert joined.reply.name == COUNTS
        counts = reply_of(hospital, joined)
        trained = hospital.ask(study, 1)
        assert trained.reply.name == REPLY
        assert (trained.done, trained.of) == (4, 4)
        update = reply_of(hospital, trained)
        judged = reply_of(hospital, hospital.ask(study, 1, "evaluate", "validation", acknowledged=1))
        status = trainer.status()
    tasks = [
        Task(run="run-1", round=0, kind="join"),
        Task(run="run-1", round=1, kind="train", terms=Terms(proximal=0.01)),
        Task(run="run-1", round=1, kind="evaluate", part="validation", acknowledged=1),
    ]
    wanted = [inline(hospital, study, task, tmp_path / "simulated") for task in tasks]
    assert counts.metrics == dict(wanted[0].content["metrics"])
    assert set(counts.arrays) == set() == set(judged.arrays)
    assert same_numbers(update.metrics, dict(wanted[1].content["metrics"]))
    assert update.arrays == {d: a.data for d, a in wanted[1].content["arrays"].items()}
    assert same_numbers(judged.metrics, dict(wanted[2].content["metrics"]))
    assert (status.site, status.study, status.run, status.round, status.kind) == (
        "oslo", "first", "run-1", 1, "evaluate",
    )  # fmt: skip
    assert (status.last_code, status.since, status.device) == (None, None, "cpu")


def test_the_reply_is_signed_for_the_coordinator(hospital: Hospital) -> None:
    study = hospital.study()
    with hospital.trainer():
        ref = hospital.put(study)
        reply = reply_of(hospital, list(hospital.client.work(ref))[-1])
    signed = hospital.assignment(study, flat=hospital.weights(study)).manifest
    manifest = verified_manifest(signed, hospital.round_key.public_key(), hospital.coordinator)
    header = verified_reply(
        read_signed(reply.header), hospital.reply_key.public_key(), hospital.coordinator, "oslo", manifest
    )
    assert header.payload == arrays_sha256(reply.arrays)
    assert header.metrics == metrics_sha256(reply.metrics or {})
    assert header.manifest == manifest.sha256()
    assert header.error is None


def test_a_task_that_comes_again_has_the_stored_reply_also_after_a_restart(hospital: Hospital) -> None:
    study = hospital.study()
    with hospital.trainer():
        first = hospital.ask(study)
        raw = (hospital.mailbox.folder / REPLY).read_bytes()
        assert hospital.ask(study).reply == first.reply
        # Joining anew, and the same task under a later manifest with another roster.
        reply_of(hospital, hospital.ask(study, 1, "join"))
    with hospital.trainer() as trainer:
        again = hospital.ask(study, best=0, roster={"oslo": {"round": 0}})
        assert again.reply == first.reply
        assert trainer.status().since is None
    assert (hospital.mailbox.folder / REPLY).read_bytes() == raw


def test_a_stored_reply_that_was_changed_is_made_again(hospital: Hospital) -> None:
    study = hospital.study()
    with hospital.trainer():
        first = reply_of(hospital, hospital.ask(study))
        path = hospital.mailbox.folder / REPLY
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        assert reply_of(hospital, hospital.ask(study)).arrays == first.arrays


def test_a_stored_reply_by_another_key_is_made_again(hospital: Hospital) -> None:
    """The link may write into the folder: what it makes up must not come back as the trainer's word."""
    study = hospital.study()
    with hospital.trainer():
        first = reply_of(hospital, hospital.ask(study))
        signed = read_signed(first.header)
        forged = sign(hospital.stranger, Kind.REPLY, signed.audience, signed.body.encode())
        put_reply(hospital.mailbox, forged.canonical(), first.metrics, first.arrays)
        again = reply_of(hospital, hospital.ask(study))
    assert read_signed(again.header).key == signed.key
    assert again.arrays == first.arrays


Spoil = Any


def another_signature(h: Hospital, a: Any) -> Any:
    body = a.manifest.body.encode()
    return a.model_copy(update={"manifest": sign(h.stranger, Kind.MANIFEST, sites_of(h.coordinator), body)})


def altered(h: Hospital, a: Any) -> Any:
    body = a.manifest.body.replace('"best":0', '"best":1')
    assert body != a.manifest.body
    return a.model_copy(update={"manifest": a.manifest.model_copy(update={"body": body})})


def of_another_audience(h: Hospital, a: Any) -> Any:
    signed = sign(h.round_key, Kind.MANIFEST, sites_of("0" * 64), a.manifest.body.encode())
    return a.model_copy(update={"manifest": signed})


def study_of_a_stranger(h: Hospital, a: Any) -> Any:
    signed = sign(h.stranger, Kind.STUDY, sites_of(h.coordinator), a.study.body.encode())
    return a.model_copy(update={"study": signed})


def another_study(h: Hospital, a: Any) -> Any:
    return a.model_copy(update={"study": h.signed(h.study("other")).study})


def another_history(h: Hospital, a: Any) -> Any:
    return a.model_copy(update={"history": "A" * 44})


@pytest.mark.parametrize(
    "spoil",
    [another_signature, altered, of_another_audience, study_of_a_stranger, another_study, another_history],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_what_is_not_rightly_signed_is_refused(hospital: Hospital, spoil: Spoil) -> None:
    study = hospital.study()
    flat = hospital.weights(study)
    assignment = spoil(hospital, hospital.assignment(study, flat=flat))
    refused(hospital, hospital.mailbox.put_task(assignment.canonical(), flat), "E_SIGNATURE")


def refused(hospital: Hospital, ref: Ref, code: str) -> None:
    """Nothing is accepted, prepared or written, but the word in the audit log that it was refused."""
    before = files(hospital.home)
    with hospital.trainer() as trainer:
        assert list(hospital.client.work(ref)) == [Progress(state="refused", code=code)]
        assert trainer.status().last_code == code
        assert trainer.status().run is None
    assert files(hospital.home) == before
    told = [(entry.event, entry.code) for entry, _ in entries(hospital.home / "trainer" / "audit.jsonl")]
    assert ("refused", code) in told


def files(home: Path) -> dict[str, bytes]:
    # That a signed study came is kept, whatever its task was: it may be decided on.
    logs = ("errors.log", "audit.jsonl")
    found = (p for p in home.rglob("*") if p.is_file() and p.name not in logs and p.parent.name != "approvals")
    return {str(p.relative_to(home)): p.read_bytes() for p in found}


def test_an_unsigned_study_is_refused(hospital: Hospital) -> None:
    study = hospital.study()
    ref = hospital.mailbox.put_task(study.canonical(), hospital.weights(study))
    refused(hospital, ref, "E_SIGNATURE")


def test_replays_and_forks_are_refused_also_after_a_restart(hospital: Hospital) -> None:
    study = hospital.study()
    first = hospital.put(study, 1)
    old = (hospital.mailbox.folder / first.name).read_bytes()
    with hospital.trainer():
        assert list(hospital.client.work(first))[-1].state == "done"
        assert hospital.ask(study, 2, acknowledged=1).state == "done"
    with hospital.trainer():
        (hospital.mailbox.folder / first.name).write_bytes(old)
        assert list(hospital.client.work(first)) == [Progress(state="refused", code="E_SIGNATURE")]
        # Round 2 with other weights, and a round 3 of a second chain over the same run.
        fork = hospital.ask(study, 2, acknowledged=1, flat=hospital.weights(study, 2), chain="fork")
        assert (fork.state, fork.code) == ("refused", "E_SIGNATURE")
        other = hospital.ask(hospital.study("other"), 3, chain="third")
        assert (other.state, other.code) == ("refused", "E_SIGNATURE")


def test_a_damaged_memory_stops_everything(hospital: Hospital) -> None:
    (hospital.home / "trainer" / "accepted.json").write_text("{")
    refused(hospital, hospital.put(hospital.study()), "E_CHECKPOINT")


def short(flat: Any) -> Any:
    return {**flat, "float32": flat["float32"][:-1]}


def long(flat: Any) -> Any:
    return {**flat, "float32": np.append(flat["float32"], np.float32(0))}


def missing(flat: Any) -> Any:
    return {"float32": flat["float32"]}


def none(flat: Any) -> Any:
    return {}


@pytest.mark.parametrize("spoil", [short, long, missing, none], ids=lambda f: f.__name__)
@pytest.mark.parametrize("signed", [True, False], ids=["signed so", "beside what was signed"])
def test_wrong_arrays_are_refused(hospital: Hospital, spoil: Spoil, signed: bool) -> None:
    study = hospital.study()
    flat = hospital.weights(study)
    wrong = spoil(flat)
    assignment = hospital.assignment(study, flat=wrong if signed else flat)
    refused(hospital, hospital.mailbox.put_task(assignment.canonical(), wrong), "E_WIRE")


def test_an_oversized_task_is_refused_by_what_it_declares(hospital: Hospital) -> None:
    """One terabyte of weights beside a good signature; the file has a hole, so that it exists."""
    study = hospital.study()
    assignment = hospital.assignment(study, flat=hospital.weights(study)).canonical().decode()
    nbytes = 1 << 40
    tensor = {"dtype": "F32", "shape": [nbytes // 4], "data_offsets": [0, nbytes]}
    head = json.dumps({"__metadata__": {"assignment": assignment}, "float32": tensor}).encode()
    path = hospital.mailbox.folder / TASK
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    os.truncate(path, 8 + len(head) + nbytes)
    code = "E_WIRE"
    with hospital.trainer():
        for ref in (
            Ref(name=TASK, nbytes=8 + len(head) + nbytes, digest="0" * 64),
            Ref(name=TASK, nbytes=8 + len(head), digest="0" * 64),
        ):
            assert list(hospital.client.work(ref)) == [Progress(state="refused", code=code)]
    assert not (hospital.home / "trainer" / "accepted.json").exists()


@pytest.mark.parametrize("name", [REPLY, COUNTS])
def test_what_the_trainer_wrote_itself_is_no_task(hospital: Hospital, name: str) -> None:
    refused(hospital, put_reply(hospital.mailbox, b"{}", None, {}, name), "E_WIRE")


def test_another_hash_than_the_files_is_refused(hospital: Hospital) -> None:
    ref = hospital.put(hospital.study())
    refused(hospital, ref.model_copy(update={"digest": "0" * 64}), "E_WIRE")


def test_other_weights_than_the_signed_ones_are_refused(hospital: Hospital) -> None:
    study = hospital.study()
    assignment = hospital.assignment(study, flat=hospital.weights(study))
    refused(hospital, hospital.mailbox.put_task(assignment.canonical(), hospital.weights(study, 2)), "E_WIRE")


def test_terms_of_another_version_are_refused(hospital: Hospital) -> None:
    refused(hospital, hospital.put(hospital.study(), terms={"proximal": 0.01, "sparsity": 0.5}), "E_WIRE")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30], ids=["NaN", "infinite", "beyond the norm"])
def test_broken_weights_end_in_a_signed_error(hospital: Hospital, value: float) -> None:
    """The coordinator signed them, so it is told, by a code and nothing else."""
    study = hospital.study()
    flat = hospital.weights(study)
    flat["float32"][7] = value
    with hospital.trainer() as trainer:
        reply = reply_of(hospital, hospital.ask(study, flat=flat))
        assert trainer.status().last_code == "E_WIRE"
    assert (reply.metrics, reply.arrays) == (None, {})
    header = header_of(hospital, reply)
    assert (header["error"], header["payload"], header["metrics"]) == ("E_WIRE", None, None)


def test_errors_leave_as_codes_and_what_failed_is_tried_again(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    study = hospital.study()
    hospital.configure(data=str(hospital.home / "DOE^JOHN"))
    with hospital.trainer() as trainer:
        last = hospital.ask(study)
        header = header_of(hospital, reply_of(hospital, last))
        assert header["error"] == "E_DATA"
        assert b"DOE" not in (hospital.mailbox.folder / REPLY).read_bytes()
        assert trainer.status().last_code == "E_DATA"
        hospital.configure()
        assert reply_of(hospital, hospital.ask(study)).arrays
        assert trainer.status().last_code is None


def test_a_full_disk_is_said_by_its_code(hospital: Hospital) -> None:
    study = hospital.study()
    with hospital.trainer():
        # Where the reply is written first, nothing can be.
        (hospital.mailbox.folder / f"..held-{COUNTS}.part").mkdir()
        last = hospital.ask(study, 0, "join")
        assert (last.state, last.code) == ("refused", "E_STORAGE")
        (hospital.mailbox.folder / f"..held-{COUNTS}.part").rmdir()
        assert hospital.ask(study, 0, "join").state == "done"


def slow_study(hospital: Hospital, steps: int = 4000) -> Study:
    return hospital.study(training={"steps": steps, "batch": 2, "rate": 0.01})


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_later_task_ends_the_older_one_after_its_step(hospital: Hospital) -> None:
    slow = slow_study(hospital)
    with hospital.trainer() as trainer:
        ended: list[BaseException] = []

        def follow(ref: Ref) -> None:
            try:
                for _ in hospital.client.work(ref):
                    pass
            except TrainerBusyError as error:
                ended.append(error)

        older = threading.Thread(target=follow, args=(hospital.put(slow),))
        older.start()
        until(lambda: trainer.status().of == 4000 and trainer.status().done >= 2)
        # The coordinator gave that round up, and wants the counts again.
        assert reply_of(hospital, hospital.ask(slow, 0, "join")).metrics is not None
        older.join(30)
        assert len(ended) == 1
    assert (hospital.home / "trainer" / "midround.safetensors").exists()


def test_a_task_of_an_older_run_has_to_wait(hospital: Hospital) -> None:
    slow = slow_study(hospital)
    older = hospital.study("older")
    before = hospital.signed(older, "run-0", issued=datetime.now(UTC) - timedelta(hours=1))
    with hospital.trainer() as trainer:
        messages = hospital.client.work(hospital.put(slow))
        assert next(messages).state == "working"
        until(lambda: trainer.status().of == 4000 and trainer.status().done >= 1)
        ref = hospital.put(older, 1, signed=before, chain="older")
        with pytest.raises(TrainerBusyError):
            list(hospital.client.work(ref))
        # And was not taken for accepted.
        known = json.loads((hospital.home / "trainer" / "accepted.json").read_text())
        assert list(known["runs"]) == ["run-1"]
        assert next(messages).state == "working"
        messages.close()


def test_the_same_task_twice_at_once_is_one_work(hospital: Hospital) -> None:
    study = slow_study(hospital, 40)
    ref = hospital.put(study)
    with hospital.trainer():
        found: list[Progress] = []
        both = [threading.Thread(target=lambda: found.append(list(hospital.client.work(ref))[-1])) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join(120)
    assert found[0].state == "done"
    assert found[0] == found[1]


def test_progress_is_told_however_long_a_step_takes(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    import client.app as app

    go_on, train = threading.Event(), app.train

    def stuck(*args: Any, **kwargs: Any) -> float:
        go_on.wait(60)
        return train(*args, **kwargs)

    monkeypatch.setattr(app, "train", stuck)
    assert BEAT < 2
    with hospital.trainer() as trainer:
        messages = hospital.client.work(hospital.put(hospital.study()))
        assert next(messages).state == "working"
        until(lambda: trainer.status().of == 4)
        for _ in range(3):
            assert next(messages).state == "working"
        assert trainer.status().done == 0
        go_on.set()
        assert list(messages)[-1].state == "done"


def test_no_trainer(hospital: Hospital) -> None:
    with pytest.raises(TrainerGoneError, match="fedscan site trainer"):
        list(hospital.client.work(Ref(name="task.safetensors", nbytes=1, digest="0" * 64)))
    with pytest.raises(TrainerGoneError):
        hospital.client.status()


def test_memory_is_given_back_between_studies(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """Net, cases and optimiser of the last study are gone when the next one is worked on."""
    alive: dict[str, list[Any]] = {"net": [], "batches": [], "optimizer": [], "loss": []}
    import client.app as app
    import client.open_site as site

    def watched(name: str, make: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            alive[name].append(weakref.ref(made))
            return made

        return wrapper

    monkeypatch.setattr(site, "build_net", watched("net", site.build_net))
    monkeypatch.setattr(site, "build_loss", watched("loss", site.build_loss))
    monkeypatch.setattr(site, "Batches", watched("batches", site.Batches))
    monkeypatch.setattr(app, "make_optimizer", watched("optimizer", app.make_optimizer))
    first, second = hospital.study(), hospital.study("second")
    with hospital.trainer():
        assert hospital.ask(first).state == "done"
        assert alive["net"][0]() is not None
        assert alive["optimizer"][0]() is None
        # The next study's join needs none of them, and has not made its own.
        joined = hospital.ask(second, 0, "join", signed=hospital.signed(second, "run-2"), chain="second")
        assert joined.state == "done"
        assert [refs[0]() for refs in alive.values()] == [None] * 4


def test_socket_and_files_are_for_the_group_only(hospital: Hospital) -> None:
    with hospital.trainer():
        hospital.ask(hospital.study(), 0, "join")
        shared = hospital.mailbox.folder
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in [shared, *shared.iterdir()]}
    assert modes == {"shared": 0o1770, "trainer.sock": 0o660, "task.safetensors": 0o640, COUNTS: 0o640}
    assert os.listdir(hospital.mailbox.folder).count("trainer.sock") == 0


def test_requests_of_another_form_are_turned_away(hospital: Hospital) -> None:
    """Straight to the socket, as nobody's client would."""
    import grpc

    names = ["../trainer/accepted.json", "/etc/passwd", "trainer.sock", "task.safetensors\x00", ""]
    with hospital.trainer(), grpc.insecure_channel(f"unix:{hospital.mailbox.socket}") as channel:
        ask = channel.unary_stream("/fedscan.Trainer/Work")
        bodies = [json.dumps({"name": n, "nbytes": 1, "digest": "0" * 64}).encode() for n in names]
        bodies += [b"", b"{}", b"\x80\x04.", b"[" * 100_000]
        for body in bodies:
            with pytest.raises(grpc.RpcError) as caught:
                list(ask(body))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError):
            list(channel.unary_stream("/fedscan.Trainer/Run")(b"{}"))


def test_signed_is_not_enough_for_a_foreign_signer(hospital: Hospital) -> None:
    """A coordinator of another federation, whose every signature is right."""
    study = hospital.study()
    flat = hospital.weights(study)
    a = hospital.assignment(study, flat=flat)
    other = key_text(hospital.stranger.public_key())
    moved = {
        "study": sign(hospital.stranger, Kind.STUDY, sites_of(hospital.coordinator), a.study.body.encode()),
        "order": sign(hospital.stranger, Kind.ORDER, sites_of(hospital.coordinator),
                      json.dumps({**json.loads(a.order.body), "round_key": other}, sort_keys=True,
                                 separators=(",", ":")).encode()),
        "manifest": sign(hospital.stranger, Kind.MANIFEST, sites_of(hospital.coordinator), a.manifest.body.encode()),
    }  # fmt: skip
    assert all(isinstance(v, Signed) for v in moved.values())
    refused(hospital, hospital.mailbox.put_task(a.model_copy(update=moved).canonical(), flat), "E_SIGNATURE")
