"""Bodies wait in few places of memory, and on disk beyond."""

from pathlib import Path

from server.port.bodies import Bodies

SIZE = 300_000


def fill(bodies: Bodies, letter: bytes, pieces: int = 30):
    body = bodies.begin()
    for _ in range(pieces):
        body.write(letter * 10_000)
    return body


def test_more_bodies_than_places_come_back_as_they_were(tmp_path: Path) -> None:
    bodies = Bodies(2, SIZE, tmp_path)
    many = [fill(bodies, bytes([65 + i])) for i in range(5)]
    small = fill(bodies, b"z", 1)
    assert [bytes(b.whole()) for b in many] == [bytes([65 + i]) * SIZE for i in range(5)]
    assert bytes(small.whole()) == b"z" * 10_000
    # Two in memory, three in files without a name.
    assert sum(b._file is not None for b in many) == 3
    assert list(tmp_path.iterdir()) == []
    for body in many:
        body.close()
    again = [fill(bodies, b"a"), fill(bodies, b"b"), fill(bodies, b"c", 20)]
    assert [b._file is not None for b in again] == [False, False, True]
    assert bytes(again[2].whole()) == b"c" * 200_000
    for body in again:
        body.close()


def test_a_place_is_kept_while_anybody_uses_it_and_shows_nothing_of_who_had_it_before(tmp_path: Path) -> None:
    bodies = Bodies(1, SIZE, tmp_path)
    first = fill(bodies, b"a")
    shared = first.share()
    first.close()
    with fill(bodies, b"b") as second:
        assert second._file is not None
    assert bytes(shared.whole()) == b"a" * SIZE
    shared.close()
    third = fill(bodies, b"c", 7)
    assert third._file is None
    assert bytes(third.whole()) == b"c" * 70_000
