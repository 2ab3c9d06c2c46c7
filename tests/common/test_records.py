"""Records from strangers: what is short on the wire and huge in memory is refused before it is parsed."""

import time
from datetime import UTC, datetime

import pytest

from common.chain import Known, KnownRuns
from common.manifests import Assignment, Counted, RoundManifest
from common.records import Record, RecordError, read_record

LIMIT = 32 * 1024 * 1024
BOMBS = {
    "empty lists": b'{"study":[' + b"[]," * 5_000_000 + b"[]]}",
    "empty objects": b'{"study":[' + b"{}," * 5_000_000 + b"{}]}",
    "ones": b'{"study":[' + b"1," * 8_000_000 + b"1]}",
    "in a text": b'{"study":"' + b'[],{},\\"' * 2_000_000 + b'"}',
}


@pytest.mark.parametrize("name", BOMBS)
def test_many_parts_in_few_bytes_are_refused_before_they_are_parsed(name: str) -> None:
    """Parsed, 15 MB of empty objects would be 3 GB of memory and a minute of work."""
    start = time.process_time()
    with pytest.raises(RecordError, match="more parts"):
        read_record(Assignment, BOMBS[name], LIMIT)
    assert time.process_time() - start < 0.5


def _runs() -> Record:
    known = Known(
        study="0" * 64, order_issued=datetime.now(UTC), sequence=1, head="0" * 64, position=(0, 1, 0), core="0" * 64
    )
    return KnownRuns(runs={f"r{n}": known for n in range(30_000)})


def _manifest() -> Record:
    roster = {f"s{n}": Counted(round=n) for n in range(1000)}
    return RoundManifest(
        run="r", study="0" * 64, sequence=1, previous="0" * 64, round=1, kind="train", base="0" * 64, roster=roster,
        terms={f"t{n}": n / 7 for n in range(32)},
    )  # fmt: skip


@pytest.mark.parametrize("make", [_runs, _manifest], ids=["a site's memory of 30000 runs", "a roster of 1000 sites"])
def test_the_densest_records_of_our_own_are_read(make: object) -> None:
    record = make()  # type: ignore[operator]
    assert read_record(type(record), record.canonical(), LIMIT) == record
