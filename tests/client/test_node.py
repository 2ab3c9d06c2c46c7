"""The node with real processes: who dies is started again, who is told to end ends in order."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.desk.service import start, stop
from client.node import LOCK, STATE, NodeState, parts, read_state, running, without_network
from common.errors import FedscanError, IdentityError

NODE = """
import json, sys
from pathlib import Path
from client.node import Node, Part, Patience
from common.log import start_log
start_log()
home, parts, patience = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
Node(home, [Part(name, tuple(command), grace) for name, command, grace in parts], Patience(**patience)).run()
"""
# Writes down when it starts, and when it is told to end; ends then unless it is stubborn.
CHILD = """
import os, signal, sys, time
from pathlib import Path
log, name, stubborn = Path(sys.argv[1]), sys.argv[2], len(sys.argv) > 3
def say(what):
    with log.open("a") as file:
        file.write(f"{name} {what} {time.monotonic()}\\n")
def told(number, frame):
    say("told")
    if not stubborn:
        sys.exit(0)
signal.signal(signal.SIGTERM, told)
say("starts")
while True:
    time.sleep(0.05)
"""
PATIENCE = {"first": 0.1, "most": 0.8, "calm": 30.0, "look": 0.02}


class Watched:
    """A node in a process of its own, over two children."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "said"
        self.process: subprocess.Popen[bytes] | None = None

    def child(self, name: str, *more: str, grace: float = 5.0) -> list[object]:
        return [name, [sys.executable, "-S", "-c", CHILD, str(self.log), name, *more], grace]

    def start(self, *children: list[object], **patience: float) -> "Watched":
        given = [json.dumps(children), json.dumps({**PATIENCE, **patience})]
        self.process = subprocess.Popen([sys.executable, "-c", NODE, str(self.home), *given])
        return self

    def said(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def state(self) -> NodeState:
        wait_for(lambda: read_state(self.home) is not None)
        state = read_state(self.home)
        assert state is not None
        return state

    def pid(self, name: str) -> int:
        wait_for(lambda: self.state().parts[name].pid is not None)
        pid = self.state().parts[name].pid
        assert pid is not None
        return pid

    def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)


def wait_for(what: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        # A child of ours that has ended stays as a zombie until it is waited for.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def test_starts_in_order_and_ends_in_reverse_order(node: Watched, tmp_path: Path) -> None:
    node.start(node.child("trainer"), node.child("link"))
    wait_for(lambda: len(node.said()) == 2)
    state = node.state()
    assert list(state.parts) == ["link", "trainer"]  # canonical JSON sorts
    assert state.parts["trainer"].since <= state.parts["link"].since
    assert node.process is not None
    assert running(tmp_path) == node.process.pid == state.pid
    assert node.end() == 0
    assert [line[:2] for line in node.said()][2:] == [["link", "told"], ["trainer", "told"]]
    assert running(tmp_path) is None
    assert not (tmp_path / STATE).exists()


@pytest.mark.parametrize("victim", ["trainer", "link"])
def test_who_is_killed_is_started_again_and_the_other_goes_on(victim: str, node: Watched) -> None:
    node.start(node.child("trainer"), node.child("link"))
    wait_for(lambda: len(node.said()) == 2)
    other = "link" if victim == "trainer" else "trainer"
    before, bystander = node.pid(victim), node.pid(other)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: node.state().parts[victim].deaths == 1 and node.state().parts[victim].pid)
    assert node.pid(victim) != before
    assert node.state().parts[victim].last == "signal 9"
    assert node.pid(other) == bystander
    wait_for(lambda: [line[0] for line in node.said()].count(victim) == 2)


def test_who_dies_again_and_again_is_started_ever_more_rarely(node: Watched) -> None:
    fails = ["link", [sys.executable, "-S", "-c", f"open({str(node.log)!r}, 'a').write('.'); raise SystemExit(3)"], 1.0]
    begun = time.monotonic()
    node.start(fails)
    wait_for(lambda: node.state().parts["link"].deaths >= 5)
    # 0.1 + 0.2 + 0.4 + 0.8 s passed between five starts; without doubling it would be 0.4.
    assert time.monotonic() - begun > 1.5
    assert node.state().parts["link"].last == "exit code 3"


def test_who_lived_long_is_started_again_at_once(node: Watched) -> None:
    node.start(node.child("link"), calm=0.0)
    for deaths in range(1, 6):
        os.kill(node.pid("link"), signal.SIGKILL)
        wait_for(lambda n=deaths: node.state().parts["link"].deaths == n)  # type: ignore[misc]
    begun = time.monotonic()
    node.pid("link")
    assert time.monotonic() - begun < 0.6  # the pause would be 0.8 s by now


def test_who_does_not_end_is_killed_after_its_grace(node: Watched) -> None:
    node.start(node.child("trainer", "stubborn", grace=0.5))
    wait_for(lambda: node.said())
    pid, begun = node.pid("trainer"), time.monotonic()
    assert node.end() == 0
    assert 0.5 <= time.monotonic() - begun < 5
    assert gone(pid)


def test_one_node_per_home(node: Watched, tmp_path: Path) -> None:
    node.start(node.child("link"))
    wait_for(lambda: node.said())
    second = Watched(tmp_path)
    second.start(node.child("link"))
    assert second.process is not None
    assert second.process.wait(20) != 0
    assert len(node.said()) == 1
    assert node.process is not None
    assert node.process.poll() is None


def test_a_killed_node_leaves_nothing_behind(node: Watched, tmp_path: Path) -> None:
    node.start(node.child("trainer"), node.child("link"))
    wait_for(lambda: len(node.said()) == 2)
    orphans = [node.pid(name) for name in ("trainer", "link")]
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    wait_for(lambda: all(gone(pid) for pid in orphans))
    assert running(tmp_path) is None
    again = Watched(tmp_path).start(node.child("trainer"))
    wait_for(lambda: len([line for line in node.said() if line[1] == "starts"]) == 3)
    assert again.end() == 0


def test_a_reused_lock_names_the_present_holder(node: Watched, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("1\n")
    assert running(tmp_path) is None
    node.start(node.child("link"))
    wait_for(lambda: node.said())
    assert node.process is not None
    assert running(tmp_path) == node.process.pid


LOOKS = """
import socket, sys
print(sorted(line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]))
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)
    print("reached")
except OSError as error:
    print("not reached")
there = socket.socket(socket.AF_UNIX)
there.connect(sys.argv[2])
print(there.recv(2).decode())
"""


@pytest.mark.skipif(not without_network(), reason="this system gives no network namespace to this user")
def test_the_trainer_has_no_network_but_the_socket(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as near:
        near.bind(str(tmp_path / "s"))
        near.listen()
        command = [sys.executable, "-c", LOOKS, str(server.getsockname()[1]), str(tmp_path / "s")]

        def look(prefix: tuple[str, ...]) -> list[str]:
            with subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, text=True) as process:
                accepted, _ = near.accept()
                accepted.sendall(b"ok")
                accepted.close()
                return process.communicate(timeout=20)[0].splitlines()

        trainer, link = parts(tmp_path)
        assert (trainer.online, link.online) == (False, True)
        assert look(trainer.command[: len(without_network())]) == ["['lo']", "not reached", "ok"]
        assert look(())[1:] == ["reached", "ok"]


def test_start_explains_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="fedscan site join"):
        start(tmp_path, False, "text")
    with pytest.raises(FedscanError, match="no site runs"):
        stop(tmp_path)
