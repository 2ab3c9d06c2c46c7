"""Messages beside a run's tasks: a site is asked one thing at a time, and the task goes first."""

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from common import wire


def message(node: int, seed: int) -> Message:
    values = np.random.default_rng(seed).standard_normal(1000).astype("float32")
    content = RecordDict({"task": ConfigRecord({"n": seed}), "arrays": wire.record({"float32": values})})
    return Message(content, dst_node_id=node, message_type="query", ttl=600, group_id="1")


def answer(found: Message) -> Message:
    return Message(RecordDict({"task": ConfigRecord({"n": 0})}), reply_to=found)


def test_what_is_sent_aside_waits_while_others_work(world) -> None:
    oslo, rome = world.enrol("oslo"), world.enrol("rome")
    with world.start() as link:
        fleet, nodes = link.fleet, link.fleet.sites()
        (task,) = fleet.send([message(nodes["oslo"], 1)])
        aside = fleet.send_aside(message(nodes["rome"], 2))
        assert aside is not None
        assert fleet.asked("rome")
        # oslo has a task: nothing else is asked of it.
        assert fleet.send_aside(message(nodes["oslo"], 3)) is None
        first, second = world.site(oslo).activate(), world.site(rome).activate()
        got = second.pull()
        assert got.content["task"]["n"] == 2
        # The run goes on meanwhile; what was sent aside to another site stays open.
        first.push(answer(first.pull()))
        assert fleet.take(task) is not None
        fleet.send([message(nodes["oslo"], 4)])
        assert fleet.open(aside)
        second.push(answer(got))
        assert fleet.take(aside) is not None
        assert not fleet.asked("rome")


def test_a_task_takes_its_place(world) -> None:
    keys = world.enrol("oslo")
    with world.start() as link:
        fleet, node = link.fleet, link.fleet.sites()["oslo"]
        aside = fleet.send_aside(message(node, 1))
        assert aside is not None
        (task,) = fleet.send([message(node, 2)])
        assert not fleet.open(aside)
        assert fleet.take(aside) is None
        site = world.site(keys).activate()
        found = site.pull()
        assert found.content["task"]["n"] == 2
        assert site.pull() is None
        site.push(answer(found))
        assert fleet.take(task) is not None
