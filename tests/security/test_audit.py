"""The audit log: every change to it is found, whoever makes it.

The oracle is that the log was changed: each of the random attacks must make the bytes other than they were, and must
then be found, with nothing to help but the head that the last reply carried.
"""

import json
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from client.work.audit import Audit, entries, verify
from common.errors import AuditError, StorageError
from common.manifests import AuditHead

STUDY = "5" * 64


def make(path: Path, lines: int = 60) -> AuditHead:
    log = Audit(path)
    log.append("started", settings="a" * 64)
    while log.head.length < lines:
        n = log.head.length
        log.append("accepted", study=STUDY, run="run-1", round=n, kind="train", part="train")
        log.append("approved", who="ada", study=STUDY, rounds=n, why="für die Leber")
        log.append("sent", study=STUDY, run="run-1", round=n, kind="train", ledger=sha256(bytes([n])).hexdigest())
    return log.head


Change = Callable[[random.Random, list[bytes]], list[bytes]]


def flip(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    n = draw.randrange(len(lines))
    line = bytearray(lines[n])
    line[draw.randrange(len(line))] ^= 1 << draw.randrange(8)
    return [*lines[:n], bytes(line), *lines[n + 1 :]]


def another_value(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    """Well-formed, in its one spelling, with the numbers of lines and hashes of lines before as they should be."""
    n = draw.randrange(len(lines))
    entry = json.loads(lines[n])
    entry["who"] = draw.choice(["eve", "mallory"])
    line = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return [*lines[:n], line, *lines[n + 1 :]]


def cut_out(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    start = draw.randrange(len(lines))
    return [*lines[:start], *lines[start + draw.randint(1, 5) :]]


def cut_tail(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    return lines[: draw.randrange(len(lines))]


def cut_front(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    return lines[draw.randint(1, len(lines)) :]


def swap(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    a, b = draw.sample(range(len(lines)), 2)
    lines = list(lines)
    lines[a], lines[b] = lines[b], lines[a]
    return lines


def reorder(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    start = draw.randrange(len(lines) - 3)
    part = lines[start : start + 4]
    draw.shuffle(part)
    return [*lines[:start], *part, *lines[start + 4 :]]


def twice(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    n, to = draw.randrange(len(lines)), draw.randint(0, len(lines))
    return [*lines[:to], lines[n], *lines[to:]]


def spelt_otherwise(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    n = draw.randrange(len(lines))
    return [*lines[:n], lines[n].replace(b",", b", ", 1), *lines[n + 1 :]]


CHANGES = [flip, another_value, cut_out, cut_tail, cut_front, swap, reorder, twice, spelt_otherwise]


def test_a_thousand_random_changes_are_all_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    known = make(path)
    assert verify(path, known) == known
    good = path.read_bytes()
    lines = good.splitlines()
    draw, tried = random.Random(7), 0
    while tried < 1000:
        change: Change = CHANGES[tried % len(CHANGES)]
        changed = b"".join(line + b"\n" for line in change(draw, lines))
        if changed == good:
            continue
        path.write_bytes(changed)
        with pytest.raises(AuditError):
            verify(path, known)
        tried += 1
    path.write_bytes(good)
    assert verify(path, known) == known


def test_a_log_written_anew_from_a_line_on_is_found_by_the_head(tmp_path: Path) -> None:
    """Who may write the file can make a chain that holds; the head that went out with a reply tells it."""
    path, other = tmp_path / "audit.jsonl", tmp_path / "other.jsonl"
    known = make(path)
    other.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:40]))
    forged = Audit(other)
    while forged.head.length < known.length:
        forged.append("stopped")
    assert verify(other) == forged.head
    with pytest.raises(AuditError, match="this is not the log"):
        verify(other, known)


def test_the_log_goes_on_after_a_known_head(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    known = make(path)
    log = Audit(path)
    log.append("paused", who="ada")
    assert verify(path, known) == log.head
    assert [entry.event for entry, _ in entries(path)][-1] == "paused"


def test_the_first_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:30], *lines[31:]]))
    with pytest.raises(AuditError, match="line 31"):
        verify(path)


def test_a_torn_line_is_cut_off_and_said(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    known = make(path)
    with path.open("ab") as file:
        file.write(b'{"event":"acc')
    with pytest.raises(AuditError, match="cut in the middle"):
        verify(path)
    log = Audit(path)
    assert log.head.length == known.length + 1
    assert verify(path, known) == log.head
    assert [entry.event for entry, _ in entries(path)][-1] == "torn"


def test_an_altered_log_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make(path)
    path.write_bytes(path.read_bytes().replace(b'"ada"', b'"eve"', 1))
    with pytest.raises(AuditError, match="Keep the file"):
        Audit(path)


def test_heads_cannot_be_guessed(tmp_path: Path) -> None:
    """The same events at the same moment have other heads: the first line holds a random number."""
    heads = {make(tmp_path / name / "audit.jsonl", 3).head for name in "ab"}
    assert len(heads) == 2


def test_whoever_is_refused_without_end_does_not_fill_the_disk(tmp_path: Path) -> None:
    now = [0.0]
    log = Audit(tmp_path / "audit.jsonl", lambda: now[0])
    before = log.head.length
    for _ in range(100_000):
        now[0] += 0.1
        log.refused("E_WIRE")
    found = [entry for entry, _ in entries(tmp_path / "audit.jsonl")][before:]
    # In 10 000 s: at 0, then after 1, 2, 4, ... minutes.
    assert 7 <= len(found) <= 9
    assert sum(entry.times or 1 for entry in found) > 50_000
    log.refused("E_POLICY", "steps")
    assert log.head.length == before + len(found) + 1


def test_a_full_disk_leaves_the_log_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    make(path)
    log, good = Audit(path), path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("client.work.journal.os.fsync", full)
    with pytest.raises(StorageError, match="No space"):
        log.append("paused", who="ada")
    log.refused("E_WIRE")
    monkeypatch.undo()
    assert path.read_bytes() == good
    log.append("paused", who="ada")
    assert verify(path) == log.head


def test_nothing_but_the_closed_list_is_written(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.jsonl")
    for details in (
        {"path": "/data/DOE^JOHN"},
        {"code": "FileNotFoundError: DOE"},
        {"run": "../x"},
        {"kind": "DOE^JOHN"},
    ):
        with pytest.raises(ValueError, match="validation error"):
            log.append("failed", **details)
    with pytest.raises(ValueError, match="validation error"):
        log.append("looked at DOE^JOHN")  # type: ignore[arg-type]
    assert log.head.length == 1
