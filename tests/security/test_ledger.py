"""What the ledger says left is what the coordinator got, byte for byte: hashlib over the captured bytes says so."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from client.work.audit import entries, verify
from client.work.ledger import Line, lines
from common.cli import run as fedscan
from common.errors import AuditError
from common.manifests import AuditHead
from common.wire import Schema
from tests.client.conftest import Hospital
from tests.security.federation import Federation


def ledger(home: Path) -> list[Line]:
    return [line for line, _ in lines(home / "trainer" / "egress.jsonl")]


def test_the_ledgers_hashes_are_those_of_the_captured_payloads(federation: Federation) -> None:
    hospital = federation.hospital
    hospital.configure(egress="{keep: true}")
    study = hospital.study(rounds={"number": 2})
    with hospital.trainer(), federation.running() as server:
        federation.run(server, study)
    told, got = ledger(federation.home), federation.captured
    # Joining, two rounds of training and validation, the test.
    assert [line.kind for line in told] == ["join", "train", "evaluate", "train", "evaluate", "evaluate"]
    assert len(got) == len(told)
    for line, reply in zip(told, got, strict=True):
        assert {d: a.digest for d, a in line.arrays.items()} == {
            d: sha256(r).hexdigest() for d, r in reply.arrays.items()
        }
        assert {d: a.nbytes for d, a in line.arrays.items()} == {d: len(r) for d, r in reply.arrays.items()}
        assert line.metrics == reply.metrics
        assert (line.payload, line.metrics_sha256) == (reply.header["payload"], reply.header["metrics"])
        assert (line.run, line.study, line.to) == ("run-1", study.digest(), hospital.coordinator)
        assert line.nbytes >= sum(len(raw) for raw in reply.arrays.values())
        kept = (federation.home / "trainer" / "sent" / str(line.kept)).read_bytes()
        assert all(raw in kept for raw in reply.arrays.values())
    # The heads that the replies carried are those of the log that says all of this.
    for head, fresh in federation.heads:
        assert fresh
        verify(federation.home / "trainer" / "audit.jsonl", head)
    sent = [entry for entry, _ in entries(federation.home / "trainer" / "audit.jsonl") if entry.event == "sent"]
    assert [(e.round, e.kind) for e in sent] == [(line.round, line.kind) for line in told]


def test_the_norm_is_that_of_the_change(hospital: Hospital) -> None:
    study = hospital.study()
    with hospital.trainer():
        hospital.ask(study)
    (line,) = ledger(hospital.home)
    with (hospital.mailbox.folder / "reply.safetensors").open("rb") as file:
        n = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(n))
        raw = file.read()
    start, end = head["float32"]["data_offsets"]
    after = np.frombuffer(raw[start:end], "<f4").astype(np.float64)
    before = hospital.weights(study)["float32"].astype(np.float64)
    assert line.norm == pytest.approx(float(np.linalg.norm(after - before)), rel=1e-12)
    assert line.tensors == len(Schema.of(study).entries)


def test_the_line_is_on_disk_before_the_link_can_read_the_reply(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment at which the reply gets its name, the ledger and the audit log already tell of it."""
    import client.handover.mailbox as mailbox

    found: list[tuple[int, str, bool]] = []
    release = mailbox.Mailbox.release

    def watched(box: mailbox.Mailbox, name: mailbox.FileName) -> bool:
        last = [entry.event for entry, _ in entries(hospital.home / "trainer" / "audit.jsonl")][-1:]
        if box.path(name, held=True).exists():
            mode = box.path(name, held=True).stat().st_mode & 0o777
            found.append((len(ledger(hospital.home)), "".join(last), mode == 0o600 and not box.path(name).exists()))
        return release(box, name)

    monkeypatch.setattr(mailbox.Mailbox, "release", watched)
    with hospital.trainer():
        hospital.ask(hospital.study())
    assert found == [(1, "sent", True)]


def test_errors_and_refusals_are_in_the_books(hospital: Hospital) -> None:
    hospital.configure(data=str(hospital.home / "DOE^JOHN"))
    with hospital.trainer():
        assert hospital.ask(hospital.study(), 0, "join").state == "done"
    (line,) = ledger(hospital.home)
    assert (line.error, line.metrics, line.arrays, line.nbytes) == ("E_DATA", None, {}, 0)
    assert b"DOE" not in (hospital.home / "trainer" / "egress.jsonl").read_bytes()
    assert b"DOE" not in (hospital.home / "trainer" / "audit.jsonl").read_bytes()


def shown(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    code = fedscan([str(a) for a in args])
    return code, capsys.readouterr().out


def test_the_commands_show_what_left_and_find_what_was_changed(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    study = hospital.study()
    with hospital.trainer() as trainer:
        hospital.ask(study, 0, "join")
        hospital.ask(study, 1)
        head = trainer.books.audit.head
    home = hospital.home
    code, said = shown(capsys, "site", "egress", "show", "--home", home, "--round", 1)
    assert code == 0
    assert "first, round 1, train" in said
    assert "round 0" not in said
    line = next(line for line in ledger(home) if line.kind == "train")
    assert line.arrays["float32"].digest in said
    code, said = shown(capsys, "site", "egress", "show", "--home", home, "--json")
    assert [json.loads(row)["kind"] for row in said.splitlines()] == ["join", "train"]
    known = ("--head", head.head, "--length", head.length)
    code, said = shown(capsys, "site", "audit", "verify", "--home", home, *known)
    assert code == 0
    assert "whole:" in said
    # The ledger is held by the log: a line of it that is changed shows, and so does one that is missing.
    path = home / "trainer" / "egress.jsonl"
    good = path.read_bytes()
    for changed in (good.replace(b'"round":1', b'"round":2'), good.splitlines(keepends=True)[0], b""):
        path.write_bytes(changed)
        code, said = shown(capsys, "site", "audit", "verify", "--home", home)
        assert (code, said.startswith("not whole:")) == (1, True)
    # A line too many is told as well: it stands for nothing that left.
    for added in (good + good.splitlines(keepends=True)[0], good.splitlines(keepends=True)[1] + good):
        path.write_bytes(added)
        code, said = shown(capsys, "site", "audit", "verify", "--home", home)
        assert (code, "and 1 line of the ledger of which the log says nothing" in said) == (0, True)
    path.write_bytes(good)
    code, said = shown(capsys, "site", "audit", "verify", "--home", home)
    assert (code, "of which the log" in said) == (0, False)
    assert shown(capsys, "site", "audit", "verify", "--home", home, "--head", "abc", "--length", 3)[0] == 2
    log = home / "trainer" / "audit.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-2]))  # "sent" and "stopped"
    code, said = shown(capsys, "site", "audit", "verify", "--home", home, *known)
    assert (code, "its end was cut off" in said) == (1, True)


def test_a_log_cut_back_to_a_head_that_the_coordinator_has_seen_is_told() -> None:
    """What the coordinator does with the heads; the sites' logs are not here."""
    import tempfile

    from server.audit_heads import AuditHeads

    def head(length: int, of: str = "a") -> AuditHead:
        return AuditHead(head=sha256(f"{of}{length}".encode()).hexdigest(), length=length)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "heads.json"
        heads = AuditHeads(path)
        assert [heads.heard("oslo", head(n), True) for n in (5, 9, 14)] == [None] * 3
        # A stored reply to an older question comes late, or again: its log was shorter then.
        assert heads.heard("oslo", head(7), False) is None
        assert heads.heard("oslo", head(9), True) is None
        assert AuditHeads(path).heard("oslo", head(12, "b"), True) == "shrank"
        heads = AuditHeads(path)
        assert heads.heard("oslo", head(13, "b"), True) is None
        assert heads.heard("oslo", head(13, "c"), True) == "forked"
        assert heads.heard("rome", head(1), True) is None


def test_a_ledger_that_was_edited_is_not_shown_as_if_it_were_whole(hospital: Hospital) -> None:
    with hospital.trainer():
        hospital.ask(hospital.study(), 0, "join")
    path = hospital.home / "trainer" / "egress.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"kind":"join"', b'"kind":"send"'))
    with pytest.raises(AuditError, match="line 1"):
        ledger(hospital.home)
