"""Tasks out and replies in, over real TLS: nothing lost, nothing doubled, nothing that a site may not have."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.corestate import in_memory_corestate
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from client.app import make_app
from client.data import preprocess
from client.data.cache import store
from client.data.volume import CachedCase, SiteData
from client.open_site import OpenSite, Workplace
from client.site import SiteConfig
from common import wire
from common.study import Study
from server.events import read_events
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid

N = 3_000_000  # three of Flower's chunks


def values(seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype("float32")


def task(node: int, content: np.ndarray | None = None, ttl: float = 600) -> Message:
    records = RecordDict({"task": ConfigRecord({"n": 1})})
    if content is not None:
        records["arrays"] = wire.record({"float32": content})
    return Message(records, dst_node_id=node, message_type="train", ttl=ttl, group_id="1")


def update(message: Message, content: np.ndarray) -> Message:
    return Message(RecordDict({"arrays": wire.record({"float32": content})}), reply_to=message)


def floats(message: Message) -> np.ndarray:
    return np.frombuffer(message.content["arrays"]["float32"].data, "<f4")


@contextmanager
def refused(status: int) -> Iterator[None]:
    with pytest.raises(httpx.HTTPStatusError) as found:
        yield
    assert found.value.response.status_code == status


def refusals(caplog) -> list[dict]:
    return [json.loads(r.getMessage()) for r in caplog.records if r.name == "fedscan.gate"]


def test_a_task_goes_out_and_its_reply_comes_back(world) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        site = world.site(keys).activate()
        (sent,) = link.grid.push_messages([task(link.fleet.sites()["oslo"], values(0))])
        assert list(link.grid.pull_messages([sent])) == []
        message = site.pull()
        assert np.array_equal(floats(message), values(0))
        assert site.pull() is None
        site.push(update(message, -values(0)))
        (reply,) = link.grid.pull_messages([sent])
        assert np.array_equal(floats(reply), -values(0))
        assert reply.metadata.reply_to_message_id == sent
        assert list(link.grid.pull_messages([sent])) == []
        # Nothing stays behind.
        assert len(link.fleet._state.object_store) == 0
        assert list((world.folder / "inbox").iterdir()) == []


def test_a_task_waits_for_a_site_that_is_away_or_has_lost_it(world, monkeypatch) -> None:
    """Sent before the site ever came; its answer to a poll got lost; its process died with it; it was offline."""
    keys = world.enrol("oslo")
    with world.start() as link:
        (sent,) = link.grid.push_messages([task(link.fleet.sites()["oslo"], values(0, 10))])
        first = world.site(keys).activate()
        assert first.poll().messages_list  # the answer that never arrived
        assert floats(first.pull(confirm=True)).size == 10
        assert not first.poll().messages_list
        first.deactivate()  # the node is away: Flower's own answer would be "node unavailable"
        assert list(link.grid.pull_messages([sent])) == []
        second = world.site(keys).activate()
        message = second.pull()
        assert message.metadata.message_id == sent
        second.push(update(message, values(1, 10)))
        second.deactivate()
        (reply,) = link.grid.pull_messages([sent])
        assert np.array_equal(floats(reply), values(1, 10))


def test_an_upload_that_broke_off_goes_on_where_it_stopped(world) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        site = world.site(keys).activate()
        (sent,) = link.grid.push_messages([task(link.fleet.sites()["oslo"], values(0))])
        reply = update(site.pull(), values(1))
        announced = site.announce(reply)
        objects = get_all_nested_objects(reply)
        half = sorted(announced.objects_to_push)[: len(objects) // 2]
        for object_id in half:
            site.push_object(announced.session_id, object_id, objects[object_id].deflate())
        assert list(link.grid.pull_messages([sent])) == []
        site.deactivate()
        again = world.site(keys).activate()
        assert again.pull() is not None
        left = again.announce(reply)
        assert sorted(left.objects_to_push) == sorted(set(objects) - set(half))
        again.push(reply)
        (got,) = link.grid.pull_messages([sent])
        assert np.array_equal(floats(got), values(1))


def test_a_site_that_asks_all_the_time_never_sees_half_a_task(world) -> None:
    keys = world.enrol("oslo")
    stop, seen, failed = threading.Event(), [], []

    def ask(site) -> None:
        while not stop.is_set():
            try:
                message = site.pull()
            except httpx.HTTPStatusError as error:
                failed.append(error)
                return
            if message is not None:
                seen.append(floats(message))
                site.push(update(message, values(9, 10)))

    with world.start() as link:
        thread = threading.Thread(target=ask, args=(world.site(keys).activate(),))
        thread.start()
        try:
            for seed in range(4):
                (sent,) = link.grid.push_messages([task(link.fleet.sites()["oslo"], values(seed, 2 * N))])
                end = time.monotonic() + 30
                while thread.is_alive() and time.monotonic() < end and not list(link.grid.pull_messages([sent])):
                    time.sleep(0.02)
        finally:
            stop.set()
            thread.join()
    assert failed == []
    assert [np.array_equal(got, values(seed, 2 * N)) for seed, got in enumerate(seen)] == [True] * 4


def test_a_reply_to_a_task_that_is_over_is_told_so(world) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        site = world.site(keys).activate()
        link.grid.push_messages([task(link.fleet.sites()["oslo"], values(0, 10))])
        old = site.pull()
        link.grid.push_messages([task(link.fleet.sites()["oslo"], values(1, 10))])
        with refused(410):
            site.push(update(old, values(2, 10)))
        assert np.array_equal(floats(site.pull()), values(1, 10))


def test_a_site_gets_and_answers_its_own_tasks_only(world) -> None:
    oslo, bergen = world.enrol("oslo"), world.enrol("bergen")
    with world.start() as link:
        first, second = world.site(oslo).activate(), world.site(bergen).activate()
        nodes = link.fleet.sites()
        shared = values(0, 10)
        sent = link.grid.push_messages([task(nodes["oslo"], shared), task(nodes["bergen"], shared)])
        message, other = first.pull(), second.pull()
        assert {message.metadata.message_id, other.metadata.message_id} == set(sent)
        with refused(410):
            first.pull_object(other.object_id)
        with refused(410):
            first.push(update(other, values(1, 10)))
        # A guess at what the other site sent: the same answer whether it was right or not.
        secret = Message(RecordDict({"metrics": MetricRecord({"num-examples": 37})}), reply_to=other)
        second.push(secret)
        objects = get_all_nested_objects(secret)
        metrics = next(i for i, o in objects.items() if isinstance(o, MetricRecord))
        with refused(410):
            first.pull_object(metrics)
        guess = Message(RecordDict({"metrics": MetricRecord({"num-examples": 37})}), reply_to=message)
        announced = first.announce(guess)
        assert metrics in announced.objects_to_push
        with refused(410):
            session = announced.session_id.replace(sent[0], sent[1])
            first.push_object(session, metrics, objects[metrics].deflate())
        (reply,) = link.grid.pull_messages([sent[1]])
        assert reply.content["metrics"]["num-examples"] == 37


def test_a_site_answers_under_its_enrolled_name(world) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        site = world.site(keys).activate()
        (sent,) = link.grid.push_messages([task(link.fleet.sites()["oslo"])])
        site.push(wire.site_reply(site.pull(), "bergen", {"train": 3}))
        (reply,) = link.grid.pull_messages([sent])
        assert reply.error.reason == "E_WIRE"


def test_a_revoked_site_s_open_task_is_no_longer_waited_for(world) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        world.site(keys).activate()
        (sent,) = link.grid.push_messages([task(link.fleet.sites()["oslo"])])
        assert list(link.grid.pull_messages([sent])) == []
        world.revoke(keys)
        (reply,) = link.grid.pull_messages([sent])
        assert reply.has_error()


def _object(kind: str, children: list[str], body: bytes) -> tuple[str, bytes]:
    content = f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body
    return hashlib.sha256(content).hexdigest(), content


def test_one_chunk_named_a_thousand_times_costs_nothing(world, caplog) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        site = world.site(keys).activate()
        (sent,) = link.grid.push_messages([task(link.fleet.sites()["oslo"], values(0))])
        honest = update(site.pull(), values(1))
        _, chunk = _object("ArrayChunk", [], bytes(5 << 20))
        chunk_id = hashlib.sha256(chunk).hexdigest()
        about = {"dtype": "float32", "shape": [N], "stype": wire.STYPE, "arraychunk_ids": [0] * 1000}
        array_id, array = _object("Array", [chunk_id], json.dumps(about).encode())
        arrays_id, arrays = _object("ArrayRecord", [array_id], json.dumps({"float32": array_id}).encode())
        dict_id, records = _object("RecordDict", [arrays_id], json.dumps({"arrays": arrays_id}).encode())
        root, message = _object("Message", [dict_id], honest.deflate().partition(b"\0")[2])
        tree = ObjectTree(object_id=root)
        for object_id in (chunk_id, array_id, arrays_id, dict_id):
            tree.children.add(object_id=object_id)
        announced = site.announce_raw(message_to_proto(remove_content_from_message(honest)), tree)
        contents = dict(
            [(chunk_id, chunk), (array_id, array), (arrays_id, arrays), (dict_id, records), (root, message)]
        )
        for object_id in announced.objects_to_push:
            site.push_object(announced.session_id, object_id, contents[object_id])
        start = time.process_time()
        (reply,) = link.grid.pull_messages([sent])
        assert time.process_time() - start < 1
        assert reply.error.reason == "E_WIRE"
    assert any("pieces" in line["why"] and line["refused"] == "oslo" for line in refusals(caplog))


def test_bytes_and_objects_beyond_the_task_s_allowance_are_not_taken(world) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        site = world.site(keys).activate()
        link.grid.push_messages([task(link.fleet.sites()["oslo"], values(0, 1000))])
        message = site.pull()
        with refused(413):
            site.push(update(message, values(1, 1_000_000)))
        tree = get_object_tree(message)
        for i in range(1000):
            tree.children.add(object_id=f"{i:064x}")
        with refused(413):
            site.announce_raw(message_to_proto(update(message, values(1, 10))), tree)
        head = message_to_proto(update(message, values(1, 10)))
        with refused(400):
            site.announce_raw(head, ObjectTree(object_id="../../escape"))


def test_flower_s_run_outlives_any_silence(world, monkeypatch) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        monkeypatch.setattr(in_memory_corestate, "now", lambda: tomorrow)
        run = link.fleet._run
        assert link.fleet._state.get_run_status({run})[run].status == "running"
        monkeypatch.undo()
        world.site(keys).activate().poll()


# Rounds


def make_case(folder: Path, name: str, seed: int) -> CachedCase:
    """A bright disc on noise, 16 x 16 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    label = ((y - rng.integers(5, 11)) ** 2 + (x - rng.integers(5, 11)) ** 2 < 14).astype("uint8")
    image = (label + 0.4 * rng.normal(size=label.shape)).astype("float32")[None]
    grid = preprocess.grid((16, 16), np.eye(4))
    voxels = [int(label.sum())]
    foreground = np.column_stack([np.argwhere(label), label[label > 0]]).astype("int32")
    arrays = {"image": image, "label": label, "truth": label, "foreground": foreground}
    grids, counts = {"own": grid, "plan": grid}, {"voxels": voxels, "plan_voxels": voxels}
    store(
        folder / name,
        arrays,
        {"image": name, "content": name, **grids, **counts, "unlabelled": [], "notes": [], "gate": {}},
    )
    return CachedCase(name, name, folder / name, f"{seed:064d}", name)


def open_site(folder: Path, name: str, seed: int, place: Workplace) -> OpenSite:
    made = [make_case(folder / "cases" / name, f"{name}-{i}", seed + i) for i in range(5)]
    data = SiteData(tuple(made[:3]), tuple(made[3:4]), tuple(made[4:]))
    return OpenSite(SiteConfig(name=name, data=Path()), folder / "sites" / name, lambda study: data, place)


STUDY = Study.model_validate(
    {
        "name": "toy",
        "data": {"labels": ["disc"], "dimensions": 2},
        "plan": {"patch": [16, 16]},
        "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
        "training": {"steps": 2, "rate": 0.01, "batch": 2},
        "rounds": {"number": 2},
        "strategy": {"name": "fedprox"},
    }
)
SITES = {"oslo": 10, "bergen": 20}


def test_rounds_over_the_wire_equal_inline_ones_bit_for_bit(world, tmp_path: Path) -> None:
    def run(grid, out: str) -> Run:
        members = join(grid, STUDY, deadline=60)
        made = Run(grid, STUDY, tmp_path / out / "run", [members[n] for n in SITES], list(members.values()))
        made.start()
        return made

    place = Workplace(torch.device("cpu"))
    inline = [open_site(tmp_path / "inline", name, seed, place) for name, seed in SITES.items()]
    grid = InlineGrid(make_app(lambda c: inline[int(c.node_config["partition-id"])]), len(inline))
    expected = run(grid, "inline")

    apart = [open_site(tmp_path / "wire", n, s, Workplace(torch.device("cpu"))) for n, s in SITES.items()]
    keys = [world.enrol(name) for name in SITES]
    stop = threading.Event()
    with world.start() as link:
        threads = []
        for site, key in zip(apart, keys, strict=True):
            app = make_app(lambda c, site=site: site)
            threads.append(threading.Thread(target=world.site(key).activate().serve, args=(app, stop)))
        for thread in threads:
            thread.start()
        try:
            got = run(link.grid, "wire")
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    best, again = expected.best(), got.best()
    assert set(best) == set(again)
    for dtype in best:
        assert best[dtype].tobytes() == again[dtype].tobytes()
    events = read_events(tmp_path / "wire" / "run" / "events.jsonl")
    assert [e["event"] for e in events if e["event"] == "failed"] == []
    assert sum(e["event"] == "trained" for e in events) == 4
