"""A coordinator and many small sites on one machine; prints the coordinator's seconds and peak of memory as JSON.

    many_sites.py FOLDER PARAMETERS SITES ROUNDS

Sites are forked before anything listens: each answers with other weights than it was sent.
"""

import common.quiet  # noqa: F401

import importlib.util
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from common import wire
from server.port.memory import give_back

spec = importlib.util.spec_from_file_location("federation", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
federation = importlib.util.module_from_spec(spec)
sys.modules["federation"] = federation
spec.loader.exec_module(federation)


def be_a_site(world: Any, keys: Any, told: int) -> None:
    port, run = json.loads(os.read(told, 1000))
    world.link = SimpleNamespace(port=port, fleet=SimpleNamespace(_run=run))
    noise = np.random.default_rng(os.getpid())

    def answer(message: Message, _: Context) -> Message:
        weights = np.frombuffer(message.content["arrays"]["float32"].data, "<f4")
        weights = weights + np.float32(noise.standard_normal())
        content = RecordDict({"arrays": wire.record({"float32": weights}), "metrics": MetricRecord({"n": 1})})
        return Message(content, reply_to=message)

    world.site(keys).activate().serve(answer, threading.Event())


def peak() -> float:
    """MB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def one_round(link: Any, weights: Any) -> Any:
    content = RecordDict({"arrays": wire.record({"float32": weights}), "task": ConfigRecord({"n": 1})})
    nodes = link.fleet.sites().values()
    ids = list(link.grid.push_messages([Message(content, node, "train", ttl=600) for node in nodes]))
    total, sites = np.zeros(weights.size), len(ids)
    while ids:
        for message_id in list(ids):
            for reply in link.grid.pull_messages([message_id]):
                ids.remove(message_id)
                total += np.frombuffer(reply.content["arrays"]["float32"].data, "<f4")
                del reply
        time.sleep(0.02)
    return (total / sites).astype("float32")


def main() -> None:
    folder, parameters, sites, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    world = federation.World(folder)
    children, pipes = [], []
    for keys in [world.enrol(f"site-{i}") for i in range(sites)]:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                be_a_site(world, keys, told)
            finally:
                os._exit(0)
        children.append(child)
        pipes.append(tell)
    give_back()
    seconds = []
    with world.start() as link:
        for tell in pipes:
            os.write(tell, json.dumps([link.port, link.fleet._run]).encode())
        while len(link.fleet.online()) < sites:
            time.sleep(0.05)
        weights = np.random.default_rng(0).standard_normal(parameters, np.float32)
        for _ in range(rounds):
            start = time.monotonic()
            weights = one_round(link, weights)
            seconds.append(time.monotonic() - start)
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)
    print(json.dumps({"seconds": seconds, "peak": peak()}))


main()
