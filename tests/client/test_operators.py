"""The operators' socket: who calls is the kernel's word; other users are played by processes that become them."""

import grp
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.desk.operator import RefusedError, ask
from client.handover.operation import FOLDER, Asked, Operation, TalkError, Verdict, receive, send, socket_of
from client.handover.operators import Operations, serve_operators
from client.handover.peer import Caller, caller
from common.errors import FedscanError, StudyError
from common.records import Record, read_record

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
# Users and groups that every Debian, Fedora and Alpine has; the numbers differ.
OPERATOR, OTHER, GROUP = "daemon", "mail", "bin"


class Word(Record):
    text: str


class Who(Record):
    name: str
    text: str


ECHO = Operation("echo", Word, Who)
WRONG = Operation("wrong", Word, Who)
BROKEN = Operation("broken", Word, Who)


def _wrong(word: Word, who: Caller) -> Who:
    raise StudyError(f"{word.text} is wrong")


def _broken(word: Word, who: Caller) -> Who:
    raise ZeroDivisionError


def operations() -> Operations:
    found = Operations()
    found.on(ECHO, lambda word, who: Who(name=who.name, text=word.text))
    found.on(WRONG, _wrong)
    found.on(BROKEN, _broken)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)  # whatever the umask
    return home


@pytest.fixture
def served(home: Path) -> Iterator[Path]:
    with serve_operators(home, None, operations()):
        yield home


CALL = """
import os, sys
from pathlib import Path
from client.desk.operator import ask
from client.handover.operation import Operation
from common.errors import FedscanError
from common.records import Record
class Word(Record):
    text: str
class Who(Record):
    name: str
    text: str
uid, *groups = map(int, sys.argv[2:])
# From within, so that the socket refuses and no folder above it; and only now, because the new user
# need not be able to read this Python.
os.chdir(sys.argv[1])
os.setgroups(groups)
os.setgid(groups[0])
os.setuid(uid)
try:
    print(ask(Path(), Operation("echo", Word, Who), Word(text="hello")).canonical().decode())
except FedscanError as error:
    print("refused:", error)
"""


def call_as(home: Path, user: str, groups: list[str]) -> str:
    """What a process of another user is told."""
    numbers = [pwd.getpwnam(user).pw_uid, *(grp.getgrnam(g).gr_gid for g in groups)]
    command = [sys.executable, "-c", CALL, str(home), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_own_user_asks_and_is_known(served: Path) -> None:
    answer = ask(served, ECHO, Word(text="x" * 100_000))
    assert answer == Who(name=pwd.getpwuid(os.getuid()).pw_name, text="x" * 100_000)


def test_modes_without_group(served: Path) -> None:
    assert stat.S_IMODE((served / FOLDER).stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_of(served).stat().st_mode) == 0o600


def test_errors_reach_the_caller_with_their_code(served: Path) -> None:
    with pytest.raises(RefusedError, match="this is wrong") as refused:
        ask(served, WRONG, Word(text="this"))
    assert refused.value.reason == "E_STUDY"
    with pytest.raises(RefusedError, match="nobody expected"):
        ask(served, BROKEN, Word(text="this"))
    with pytest.raises(RefusedError, match="no operation 'absent'"):
        ask(served, Operation("absent", Word, Who), Word(text=""))
    with pytest.raises(RefusedError, match="name: Extra inputs"):
        ask(served, Operation("echo", Who, Who), Who(name="mallory", text=""))


def test_nobody_there(home: Path) -> None:
    with pytest.raises(FedscanError, match="no trainer answers"):
        ask(home, ECHO, Word(text=""))


def test_a_long_message_is_not_read(served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as to:
        to.settimeout(10)
        to.connect(str(socket_of(served)))
        to.sendall((1 << 31).to_bytes(4, "big"))
        with pytest.raises((TalkError, ConnectionResetError)):
            receive(to, 100)
    assert ask(served, ECHO, Word(text="still there")).text == "still there"


def test_rubbish_is_refused(served: Path) -> None:
    for first in (b"", b"{}", b'{"operation": 1}', b"\xff\xfe", b'{"operation":"echo","operation":"echo"}'):
        with socket.socket(socket.AF_UNIX) as to:
            to.settimeout(10)
            to.connect(str(socket_of(served)))
            to.sendall(len(first).to_bytes(4, "big") + first)
            send(to, Word(text=""))
            assert read_record(Verdict, receive(to, 10_000), 10_000).state == "refused"


def test_a_caller_is_named_by_the_kernel() -> None:
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        found = caller(near)
    assert (found.uid, os.getgid() in found.groups) == (os.getuid(), True)


def test_an_unknown_group_is_named(home: Path) -> None:
    with (
        pytest.raises(FedscanError, match="no group absent-group"),
        serve_operators(home, "absent-group", operations()),
    ):
        pass


def test_the_socket_is_gone_afterwards(home: Path) -> None:
    with serve_operators(home, None, operations()):
        assert socket_of(home).exists()
    assert not socket_of(home).exists()


@AS_ROOT
def test_members_of_the_group_are_named_and_others_kept_out(home: Path) -> None:
    with serve_operators(home, GROUP, operations()):
        assert stat.S_IMODE((home / FOLDER).stat().st_mode) == 0o750
        assert stat.S_IMODE(socket_of(home).stat().st_mode) == 0o660
        assert json.loads(call_as(home, OPERATOR, [OPERATOR, GROUP])) == {"name": OPERATOR, "text": "hello"}
        assert json.loads(call_as(home, OTHER, [GROUP])) == {"name": OTHER, "text": "hello"}
        assert "may not ask the trainer" in call_as(home, OTHER, [OPERATOR])


@AS_ROOT
@pytest.mark.parametrize("group", [None, GROUP])
def test_the_check_holds_where_the_modes_do_not(home: Path, group: str | None) -> None:
    """Modes that somebody has opened let a stranger connect; then the kernel's word refuses him."""
    with serve_operators(home, group, operations()):
        (home / FOLDER).chmod(0o755)
        socket_of(home).chmod(0o666)
        assert f"refused: {OTHER}" in call_as(home, OTHER, [OPERATOR])


@AS_ROOT
def test_the_links_user_is_refused_even_as_a_member(home: Path) -> None:
    link = home / "link"
    link.mkdir()
    os.chown(link, pwd.getpwnam(OTHER).pw_uid, -1)
    with serve_operators(home, GROUP, operations()):
        assert "user of the link" in call_as(home, OTHER, [GROUP])
        assert json.loads(call_as(home, OPERATOR, [OPERATOR, GROUP]))["name"] == OPERATOR


def test_asked_is_closed() -> None:
    assert Asked(operation="echo").canonical() == b'{"operation":"echo"}'
