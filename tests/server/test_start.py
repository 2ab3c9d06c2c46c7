"""The parts of a serving process that can be seen without one: its lock, its log, what it says when it cannot start."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import log
from common.cli import run
from common.errors import FedscanError, IdentityError
from common.lock import alone, held
from server.enrolment.identity import create
from server.service.start import ServerOptions, launch, serve


@pytest.fixture
def logging_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not held(path)
    program = (
        "import sys, time, pathlib; from common.lock import alone\n"
        "with alone(pathlib.Path(sys.argv[1]), Exception()): print('there', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
        assert held(path)
        assert path.read_text() == f"{child.pid}\n"
        with pytest.raises(IdentityError, match="taken"), alone(path, IdentityError("taken")):
            pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert not held(path)
    with alone(path, IdentityError("taken")):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_home_without_a_coordinator_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["start"], ["start", "--foreground"], ["stop"]):
        assert run(["server", *command, "--home", str(tmp_path)]) == 1
        assert "fedscan server init" in capsys.readouterr().err
    assert run(["run", "list", "--home", str(tmp_path)]) == 1
    assert "holds no coordinator" in capsys.readouterr().err


def test_a_served_home_is_not_served_twice(tmp_path: Path) -> None:
    home = create(tmp_path / "home", ["127.0.0.1"], 8443, b"").home
    with alone(home / "server.lock", FedscanError("")):
        for begin in (lambda: launch(ServerOptions(home), "text"), lambda: serve(ServerOptions(home))):
            with pytest.raises(FedscanError, match="runs already; see: fedscan server status"):
                begin()


def test_keys_that_do_not_fit_are_said_before_anything_listens(tmp_path: Path) -> None:
    home = create(tmp_path / "home", ["127.0.0.1"], 8443, b"").home
    other = create(tmp_path / "other", ["127.0.0.1"], 8443, b"").home
    (home / "online" / "tls.pem").write_bytes((other / "online" / "tls.pem").read_bytes())
    with pytest.raises(IdentityError, match="is not the certificate of"):
        serve(ServerOptions(home))


@pytest.mark.usefixtures("logging_put_back")
def test_a_json_log_has_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.start_log("json")
    ours = logging.getLogger("fedscan.test")
    ours.info("two\nlines")
    ours.debug("not this")
    logging.getLogger("library").info("nor this")
    ours.warning("%s", json.dumps({"refused": "oslo", "times": 2}))
    ours.warning("{ not JSON")
    try:
        raise KeyError("k")
    except KeyError:
        ours.exception("failed")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["two\nlines", "refused", "{ not JSON", "failed"]
    assert lines[1]["facts"] == {"refused": "oslo", "times": 2}
    assert {line["from"] for line in lines} == {"fedscan.test"}
    assert "KeyError" in lines[3]["trace"]


@pytest.mark.usefixtures("logging_put_back")
def test_a_text_log_has_one_line_per_entry(capsys: pytest.CaptureFixture[str]) -> None:
    log.start_log("text")
    logging.getLogger("fedscan.test").info("two\n2030-01-01 error forged")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("info    fedscan.test: two 2030-01-01 error forged")


@pytest.mark.usefixtures("logging_put_back")
def test_what_a_library_says_stands_in_the_log_once(capsys: pytest.CaptureFixture[str]) -> None:
    log.start_log("text")
    library = logging.getLogger("a.library")
    library.addHandler(logging.StreamHandler(sys.stderr))
    library.propagate = False
    log.silence_handlers()
    library.error("once")
    assert capsys.readouterr().err.count("once") == 1


def test_a_long_log_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "server.log"
    log.keep_short(path)
    monkeypatch.setattr(log, "LONG", 10)
    with path.open("a") as file:  # as the process that writes it
        file.write("x" * 11)
        file.flush()
        log.keep_short(path)
        file.write("new")
        file.flush()
        log.keep_short(path)
    assert path.read_text() == "new"
    assert (tmp_path / "server.log.1").read_text() == "x" * 11
