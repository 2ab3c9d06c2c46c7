"""One site of a real federation attacks in every round; each attack is refused and logged, and every round counts.

The oracle of what the rounds make is arithmetic: the honest site adds one to every weight.
"""

import io
import json
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from common import wire
from common.wire import Schema
from tests.e2e import hostile
from tests.e2e.hostile import METRICS, PATIENT, Asked, Federation, Notes, Objects, events_of, push_objects

STRANGER = Ed25519PrivateKey.generate()
N = Schema.of(hostile.study(1)).sizes["float32"]
Attack = Callable[[Any, Asked], None]


def signed(flat: Callable[[np.ndarray], dict[str, Any]]) -> Attack:
    """An update of the attacker's choice under its own true signature."""
    return lambda site, asked: site.push(asked.reply(flat(asked.weights)))


def said(**metrics: Any) -> Attack:
    """True weights with other numbers, signed."""
    return lambda site, asked: site.push(asked.reply({"float32": asked.weights}, {**METRICS, **metrics}))


def headed(**changes: Any) -> Attack:
    """A true update under a header with changes, signed."""

    def attack(site: Any, asked: Asked) -> None:
        flat = {"float32": asked.weights}
        site.push(asked.reply(flat, raw=asked.signed(asked.header(flat, METRICS, **changes))))

    return attack


def by_key(key: Ed25519PrivateKey | None = None, coordinator: str = "") -> Attack:
    def attack(site: Any, asked: Asked) -> None:
        flat = {"float32": asked.weights}
        site.push(asked.reply(flat, raw=asked.signed(asked.header(flat, METRICS), key, coordinator)))

    return attack


def raw(header: Any) -> Attack:
    return lambda site, asked: site.push(asked.reply({"float32": asked.weights}, raw=header(asked)))


def in_flowers_form(data: bytes, **form: Any) -> Attack:
    """The bytes of an array in the form that Flower itself would hand to NumPy."""

    def attack(site: Any, asked: Asked) -> None:
        objects = Objects()
        array = objects.tensor(data, **{"stype": "numpy.ndarray", "shape": [N], **form})
        push_tensor(site, asked, objects, array)

    return attack


def push_tensor(site: Any, asked: Asked, objects: Objects, array: str) -> None:
    like = asked.reply({"float32": asked.weights})
    parts = {name: objects.raw(like.content[name].deflate()) for name in (wire.HEADER, wire.METRICS)}
    parts[wire.ARRAYS] = objects.holder("ArrayRecord", {"float32": array})
    push_objects(site, like, objects.message(like, [objects.holder("RecordDict", parts)]), objects)


class Canary:
    """What a pickle would do here."""

    path = Path()

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(site: Any, asked: Asked) -> None:
    import pickle

    in_flowers_form(pickle.dumps(Canary()))(site, asked)


def pickled_in_npy(site: Any, asked: Asked) -> None:
    file = io.BytesIO()
    np.save(file, np.array([Canary()] * 2, dtype=object), allow_pickle=True)
    in_flowers_form(file.getvalue(), dtype="object")(site, asked)


def npz_bomb(site: Any, asked: Asked) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(20_000_000))
    in_flowers_form(file.getvalue())(site, asked)


def one_chunk_a_thousand_times(site: Any, asked: Asked) -> None:
    objects = Objects()
    push_tensor(site, asked, objects, objects.tensor(asked.weights.tobytes(), arraychunk_ids=[0] * 1000))


def ten_gigabytes(site: Any, asked: Asked) -> None:
    objects = Objects()
    push_tensor(site, asked, objects, objects.tensor(asked.weights.tobytes(), shape=[10 * 2**30 // 4]))


def deep(site: Any, asked: Asked) -> None:
    objects = Objects()
    inner = objects.add("RecordDict", [], b"{}")
    for _ in range(20):
        inner = objects.holder("RecordDict", {PATIENT: inner})
    push_objects(site, asked.honest(), objects.message(asked.honest(), [inner]), objects)


def deep_json(site: Any, asked: Asked) -> None:
    objects = Objects()
    push_tensor(site, asked, objects, objects.add("Array", [], b'{"arraychunk_ids":' + b"[" * 40_000))


def of_kind(kind: str) -> Attack:
    def attack(site: Any, asked: Asked) -> None:
        objects = Objects()
        push_objects(site, asked.honest(), objects.message(asked.honest(), [objects.add(kind, [], b"{}")]), objects)

    return attack


def no_content(site: Any, asked: Asked) -> None:
    objects = Objects()
    push_objects(site, asked.honest(), objects.message(asked.honest(), []), objects)


def another_object(site: Any, asked: Asked) -> None:
    """Announced by its hash, sent with other bytes."""
    reply = asked.honest()
    announced = site.announce(reply)
    site.push_object(announced.session_id, announced.objects_to_push[0], PATIENT.encode())


def a_path(site: Any, asked: Asked) -> None:
    push_objects(site, asked.honest(), f"../../{PATIENT}", Objects())


def too_large(site: Any, asked: Asked) -> None:
    site.push(asked.reply({"float32": np.zeros(1_000_000, "f4")}))


def error_text(site: Any, asked: Asked) -> None:
    """What Flower's own client sends of an exception."""
    site.push(Message(Error(code=1, reason=f"/data/PACS/{PATIENT}/IM0001.dcm"), reply_to=asked.message))


def metrics_as_text(site: Any, asked: Asked) -> None:
    reply = asked.honest()
    reply.content[wire.METRICS] = ConfigRecord({PATIENT: "1970-01-01"})
    site.push(reply)


def without(name: str) -> Attack:
    def attack(site: Any, asked: Asked) -> None:
        reply = asked.honest()
        records = {k: v for k, v in reply.content.items() if k != name}
        site.push(Message(RecordDict(records), reply_to=asked.message))

    return attack


def swapped(name: str, record: Any) -> Attack:
    """A true header with a record that it was not signed for."""

    def attack(site: Any, asked: Asked) -> None:
        reply = asked.honest()
        reply.content[name] = record(asked)
        site.push(reply)

    return attack


def another_name(site: Any, asked: Asked) -> None:
    reply = asked.honest()
    reply.content[wire.TASK] = ConfigRecord({"site": "oslo"})
    site.push(reply)


_former: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}


def kept(site: Any, asked: Asked) -> None:
    """Honest, and remembered for the next attack."""
    reply = asked.honest()
    _former.update(reply.content)
    site.push(reply)


def replayed(site: Any, asked: Asked) -> None:
    site.push(Message(RecordDict(dict(_former)), reply_to=asked.message))


def with_value(place: int, value: float) -> Callable[[np.ndarray], dict[str, Any]]:
    def flat(weights: np.ndarray) -> dict[str, Any]:
        changed = weights.copy()
        changed[place] = value
        return {"float32": changed}

    return flat


@dataclass(frozen=True)
class Case:
    attack: Attack
    why: str  # begins what the run's event says, or the line of the log
    logged: bool = False  # refused before it came to the rounds


CASES: dict[str, Case] = {
    "NaN weight": Case(signed(with_value(3, np.nan)), "array float32 holds NaN"),
    "infinite weight": Case(signed(with_value(N - 1, -np.inf)), "array float32 holds NaN or infinite"),
    "a weight too few": Case(signed(lambda w: {"float32": w[1:]}), "array float32: its form"),
    "a weight too many": Case(
        signed(lambda w: {"float32": np.append(w, w[:1])}), "the reply's tensors would have", logged=True
    ),
    "float64": Case(signed(lambda w: {"float64": w.astype("f8")}), "the reply's tensors would have", logged=True),
    "an array more": Case(
        signed(lambda w: {"float32": w, "int64": np.arange(2)}), "the reply's tensors would have", logged=True
    ),
    "no array": Case(without(wire.ARRAYS), "the reply holds more or less than what was signed"),
    "pickle": Case(pickled, "array float32: its form"),
    "object dtype": Case(pickled_in_npy, "array float32: its form"),
    "npz bomb": Case(npz_bomb, "the reply's tensors would have", logged=True),
    "10 GB declared": Case(ten_gigabytes, "array float32: its form"),
    "one chunk 1000 times": Case(one_chunk_a_thousand_times, "the reply's tensors", logged=True),
    "records in records": Case(deep, "the reply holds", logged=True),
    "deep JSON": Case(deep_json, "the reply's objects make no message", logged=True),
    "an unknown kind": Case(of_kind(PATIENT), "the reply holds", logged=True),
    "code": Case(of_kind("Fab"), "the reply holds", logged=True),
    "no content": Case(no_content, "the reply's objects make no message", logged=True),
    "another object": Case(another_object, "the object is not what its name says", logged=True),
    "a path": Case(a_path, "the reply's objects are not named by their hashes", logged=True),
    "too large": Case(too_large, "more than 3 times the bytes", logged=True),
    "10^12 cases": Case(said(**{"num-examples": 10**12}), "metric num-examples is 1e+12"),
    "-1 cases": Case(said(**{"num-examples": -1}), "metric num-examples is -1"),
    "no case": Case(said(**{"num-examples": 0}), "the update was computed on no case"),
    "NaN cases": Case(said(**{"num-examples": float("nan")}), "metric num-examples is not a finite"),
    "a list of cases": Case(said(**{"num-examples": [4, 4]}), "metric num-examples is not a finite"),
    "more steps than joined with": Case(said(steps=10**6), "metric steps is 1e+06"),
    "time that runs backwards": Case(said(seconds=-1.0), "metric seconds is -1"),
    "infinite loss": Case(said(loss=float("inf")), "metric loss is not a finite"),
    "a metric more": Case(said(**{PATIENT: 1970}), "the reply's metrics are not the ones of the study"),
    "no metrics": Case(without(wire.METRICS), "the reply holds more or less than what was signed"),
    "metrics as text": Case(metrics_as_text, "the reply's metrics are not the ones of the study"),
    "an error's text": Case(error_text, "E_FEDSCAN"),
    "unsigned": Case(raw(lambda a: a.header({"float32": a.weights}, METRICS).canonical()), "the reply's signature"),
    "no header": Case(without(wire.HEADER), "the reply has no signed header"),
    "a number for a header": Case(raw(lambda a: 7), "the reply has no signed header"),
    "a stranger's signature": Case(by_key(STRANGER), "the reply is signed with a key that does not count"),
    "for another coordinator": Case(by_key(coordinator="f" * 64), "the reply's signature is refused (audience)"),
    "for another site": Case(headed(site="oslo"), "the reply's signature is refused (roster)"),
    "of another run": Case(headed(run="run-2"), "the reply's signature is refused (run)"),
    "of another study": Case(headed(study="f" * 64), "the reply's signature is refused (study)"),
    "of another task": Case(headed(task="run-1/1/evaluate/test"), "the reply's signature is refused (task)"),
    "from other weights": Case(headed(base="f" * 64), "the reply's signature is refused (fork)"),
    "an altered number": Case(
        swapped(wire.METRICS, lambda a: MetricRecord({**METRICS, "num-examples": 3})), "the reply's metrics are not"
    ),
    "altered weights": Case(
        swapped(wire.ARRAYS, lambda a: wire.record({"float32": a.weights + 2})), "the reply's arrays are not the ones"
    ),
    "another site's name": Case(another_name, "the site answers under another name", logged=True),
    "nothing wrong": Case(kept, ""),
    "the reply of the round before": Case(replayed, "the reply's signature is refused (task)"),
}


@dataclass(frozen=True)
class Siege:
    """A run in whose rounds one case after the other happened, and one round in which nothing did."""

    folder: Path
    notes: Notes
    federation: Federation

    def round(self, case: str) -> int:
        return list(CASES).index(case) + 1

    def failed(self, number: int) -> list[str]:
        return [e["why"] for e in events_of(self.folder, "failed") if e["round"] == number]


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory, fleet_end: Any) -> Siege:
    folder = tmp_path_factory.mktemp("siege")
    Canary.path = folder / "canary"
    federation = Federation(folder, "oslo", "mallory")
    cases = iter(CASES.values())

    def attack(site: Any, asked: Asked) -> None:
        case = next(cases, None) if asked.manifest.kind == "train" else None
        (case.attack if case else hostile.honest)(site, asked)

    stop = threading.Event()
    with hostile.noting() as notes, federation.serving():
        threads, ends = [], []
        for name, behave in (("oslo", hostile.honest), ("mallory", attack)):
            keys = federation.keys(name)
            site = fleet_end(federation, keys)
            site.run = federation.link.fleet._run
            ends.append(site.activate())
            threads.append(threading.Thread(target=hostile.serve, args=(site, keys, behave, stop)))
        for thread in threads:
            thread.start()
        try:
            run = federation.run(hostile.study(len(CASES) + 1))
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
            for end in ends:
                end.close()
    return Siege(run, notes, federation)


@pytest.mark.parametrize("name", CASES)
def test_a_site_s_attack_is_refused_and_logged(siege: Siege, name: str) -> None:
    case, number = CASES[name], siege.round(name)
    (folded,) = [e["sites"] for e in events_of(siege.folder, "folded") if e["round"] == number]
    if not case.why:
        assert (folded, siege.failed(number)) == (["mallory", "oslo"], [])
        return
    assert folded == ["oslo"]
    (why,) = siege.failed(number)
    if case.logged:
        assert any(line["refused"] == "mallory" and case.why in line["why"] for line in siege.notes.refusals)
    else:
        assert why.startswith(case.why)


def test_the_federation_goes_on_with_the_honest_sum(siege: Siege) -> None:
    """Every round counted, the attacker was let in again as soon as it behaved, and no attack moved a weight."""
    of = hostile.study(len(CASES) + 1)
    first, last = (hostile.weights_after(siege.folder, of, n)["float32"] for n in (0, of.rounds.number))
    wanted = first.copy()
    for _ in range(of.rounds.number):
        wanted = wanted + np.float32(1)
    np.testing.assert_array_equal(last, wanted)
    assert events_of(siege.folder, "folded")[-1]["sites"] == ["mallory", "oslo"]


def test_no_attack_ran_code(siege: Siege) -> None:
    assert not Canary.path.exists()


def test_logs_and_files_hold_no_patient_and_no_key(siege: Siege) -> None:
    """The attacker sent a patient's name wherever a text can be; it stands nowhere, and neither does a secret."""
    secrets = [p.read_text() for p in siege.federation.folder.rglob("*.pem") if "PRIVATE" in p.read_text()]
    assert len(secrets) >= 6
    lines = {line for text in secrets for line in text.splitlines() if line and "---" not in line}
    assert PATIENT not in siege.notes.text
    assert not any(line in siege.notes.text for line in lines)
    for path in (p for p in siege.folder.rglob("*") if p.is_file()):
        assert PATIENT.encode() not in path.read_bytes()


def test_nothing_of_a_refused_reply_stays(siege: Siege) -> None:
    assert list((siege.federation.folder / "inbox").iterdir()) == []


def test_refusals_are_lines_of_json_with_who_and_why(siege: Siege) -> None:
    for line in siege.notes.refusals:
        assert set(line) == {"refused", "where", "why", "status", "times"}
        assert json.dumps(line).isascii()
