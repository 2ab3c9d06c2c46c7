"""The site's link against the coordinator's, over real TLS, through lines that fail in every way that lines fail."""

import gzip
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from client.handover.mailbox import Mailbox
from client.site import Network
from common.errors import FedscanError
from server.service.coordinator import LinkConfig, ServerLink
from tests.e2e.site_home import ToyTrainer, assigned, join_again, make_home, running, serving
from tests.e2e.unreliable import ConnectProxy, Line, Rule, lying

HOST = "127.0.0.1"
CHUNK = 5 * 1024 * 1024
N = 3_000_000  # three chunks
ROOT = Path(__file__).parents[2]
PROXY_LOGIN = "oslo:s3cr3t-Word"


def weights(seed: int, n: int = N) -> dict[str, np.ndarray]:
    return {"float32": np.random.default_rng(seed).standard_normal(n, np.float32)}


def until(done: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = done()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def status(home: Path) -> dict[str, Any]:
    path = Mailbox(home).link_status
    return json.loads(path.read_text()) if path.exists() else {"problems": {}}


def trouble(home: Path, of: str = "coordinator") -> str | None:
    found = status(home)["problems"].get(of)
    return found and found["code"]


class Site:
    """The site oslo, its coordinator and its toy trainer."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.keys = world.enrol("oslo")
        self.home: Path = world.folder / "site"
        self.trainer = ToyTrainer(Mailbox(self.home))

    def make(self, port: int | None = None, host: str = HOST) -> Path:
        return make_home(self.home, self.keys, self.world.authority.path, host, port or self.world.link.port)

    def send(self, link: ServerLink, name: str, flat: dict[str, np.ndarray] | None = None) -> str:
        node = link.fleet.sites()["oslo"]
        (sent,) = link.grid.push_messages([assigned(node, name, flat)])
        return sent

    def exchange(self, link: ServerLink, name: str, flat: dict[str, np.ndarray] | None, seconds: float = 60) -> Message:
        return answer(link, self.send(link, name, flat), seconds)


def answer(link: ServerLink, sent: str, seconds: float = 60) -> Message:
    (reply,) = until(lambda: list(link.grid.pull_messages([sent])), seconds)
    return reply


def negated(reply: Message, flat: dict[str, np.ndarray]) -> bool:
    assert not reply.has_error(), reply.error
    arrays = reply.content["arrays"]
    assert set(arrays) == set(flat)
    return all(np.array_equal(np.frombuffer(arrays[d].data, d), -flat[d]) for d in flat)


@pytest.fixture
def site(world) -> Site:
    return Site(world)


@contextmanager
def restarted(world: Any, port: int) -> Iterator[ServerLink]:
    """Another coordinator process on the same port, as far as a site can tell: nothing of the first is left."""
    world.start()
    world.link._socket.close()
    certificate, key = world.folder / "ca" / "server.pem", world.folder / "ca" / "server.key"
    config = LinkConfig(certificate, key, world.authority.path, world.folder / "inbox", host=HOST, port=port)
    link = until(lambda: _bound(config, world.enrolment), 20)
    with link:
        yield link


def _bound(config: LinkConfig, enrolment: Any) -> ServerLink | None:
    try:
        return ServerLink(config, enrolment)
    except FedscanError:
        return None


# Tasks and replies


def test_tasks_of_every_form_cross(site, world) -> None:
    forms: list[dict[str, np.ndarray] | None] = [
        None,
        {"float32": np.ones(3, "float32")},
        {"float32": np.ones(0, "float32"), "int64": np.arange(5)},
        {"float32": weights(0, CHUNK // 4)["float32"], "int64": np.arange(CHUNK // 8 + 1)},
        {"float32": np.zeros(N, "float32")},  # all its chunks but the last are one object
    ]
    with world.start() as link, serving(site.trainer), running(site.make()):
        for i, flat in enumerate(forms):
            reply = site.exchange(link, f"task {i}", flat)
            assert dict(reply.content["metrics"]) == {"num-examples": 7, "loss": 0.25}
            assert reply.content["header"]["header"] == f"header of task {i}".encode()
            assert negated(reply, flat) if flat else "arrays" not in reply.content
        said = until(lambda: (now := status(site.home))["phase"] == "idle" and now)
        assert said["connected_since"]
        assert said["problems"] == {}
        assert said["bytes_received"] > 12_000_000
        assert set(os.listdir(site.home / "shared")) == {
            "trainer.sock", "task.safetensors", "reply.safetensors", "link.json",
        }  # fmt: skip
    assert status(site.home)["phase"] == "stopped"


def test_weights_that_are_here_already_are_not_fetched_again(site, world) -> None:
    flat = weights(0)
    with world.start() as link, serving(site.trainer), running(site.make()) as process:
        assert negated(site.exchange(link, "train", flat), flat)
        before = process.fleet.traffic.received
        assert negated(site.exchange(link, "evaluate", flat), flat)
        assert process.fleet.traffic.received - before < 200_000


def test_the_trainer_may_refuse_be_away_and_come_back(site, world) -> None:
    codes = {"first": "E_SIGNATURE"}
    site.trainer.work_on = codes.get
    with world.start() as link, running(site.make()):
        sent = site.send(link, "first", weights(0, 10))
        until(lambda: trouble(site.home, "trainer") == "trainer-away")
        with serving(site.trainer):
            assert answer(link, sent).error.reason == "E_SIGNATURE"
            codes.clear()  # it was told to accept the study
            assert negated(site.exchange(link, "first", weights(0, 10)), weights(0, 10))


def test_a_reply_that_was_lost_is_given_again_and_nothing_is_trained_twice(site, world) -> None:
    with world.start() as link, serving(site.trainer), running(site.make()):
        for _ in range(2):  # a new message each time, of the same task
            assert negated(site.exchange(link, "once", weights(0, 100)), weights(0, 100))
    assert site.trainer.trained == ["once"]


def test_the_coordinator_starts_again_while_the_site_trains(site, world) -> None:
    goes_on = threading.Event()
    site.trainer.work_on = lambda _: None if goes_on.wait(60) else "E_DATA"
    with world.start() as first:
        site.make(first.port)
        stack = running(site.home)
        with serving(site.trainer), stack:
            site.send(first, "long", weights(0))
            until(lambda: site.trainer.asked)
            first.__exit__(None, None, None)
            with restarted(world, first.port) as second:
                until(second.fleet.online)
                sent = site.send(second, "long", weights(0))
                goes_on.set()
                assert negated(answer(second, sent), weights(0))
    assert site.trainer.trained == ["long"]


def test_a_newer_task_supersedes_one_that_is_worked_on(site, world) -> None:
    stuck = threading.Event()

    def work(name: str) -> None:
        if name == "old":
            stuck.wait(60)

    site.trainer.work_on = work
    with world.start() as link, serving(site.trainer), running(site.make()):
        site.send(link, "old", weights(0, 10))
        until(lambda: "old" in site.trainer.asked)
        assert negated(site.exchange(link, "new", weights(1, 10)), weights(1, 10))
        stuck.set()


# Tasks that no trainer should see


def hostile(records: dict[str, Any], node: int) -> Message:
    return Message(RecordDict(records), dst_node_id=node, message_type="train", ttl=600, group_id="1")


BAD: dict[str, Callable[[Message], None]] = {
    "10 GB declared": lambda m: _array(m, shape=(2_500_000_000,)),
    "more elements than bytes": lambda m: _array(m, shape=(11,)),
    "two dimensions": lambda m: _array(m, shape=(2, 5)),
    "object dtype": lambda m: _array(m, dtype="object"),
    "pickled": lambda m: _array(m, stype="numpy.ndarray"),
    "another name": lambda m: m.content.__setitem__("weights", m.content.pop("arrays")),
    "another dtype's name": lambda m: m.content["arrays"].__setitem__("int64", m.content["arrays"].pop("float32")),
    "a record too many": lambda m: m.content.__setitem__("more", ConfigRecord({"n": 1})),
    "no assignment": lambda m: m.content.pop("assignment"),
    "an assignment that is no text": lambda m: m.content["assignment"].__setitem__("assignment", b"\xff\xfe"),
    "a number as assignment": lambda m: m.content["assignment"].__setitem__("assignment", 7),
}


def _array(message: Message, **about: Any) -> None:
    array = message.content["arrays"]["float32"]
    for key, value in about.items():
        object.__setattr__(array, key, value) if hasattr(array, key) else setattr(array, key, value)


@pytest.mark.parametrize("what", BAD)
def test_a_task_of_a_wrong_form_is_refused_before_it_is_fetched(site, world, what: str) -> None:
    with world.start() as link, serving(site.trainer), running(site.make()):
        message = assigned(link.fleet.sites()["oslo"], "bad", {"float32": np.ones(10, "float32")})
        BAD[what](message)
        (sent,) = link.grid.push_messages([message])
        assert answer(link, sent).error.reason == "E_WIRE"
        # The link lives, and the trainer was never asked.
        assert negated(site.exchange(link, "good", weights(0, 10)), weights(0, 10))
    assert site.trainer.asked[0] == "good"


# Lines that break


@pytest.mark.parametrize(
    ("cut", "chunks_again"), [(("down", 9_000_000), 1), (("down", 2_000_000), 1), (("up", 9_000_000), 1)]
)
def test_a_transfer_that_broke_off_goes_on_where_it_was(site, world, cut: tuple[str, int], chunks_again: int) -> None:
    flat = weights(0)
    with world.start() as link, Line(link.port, cuts=[cut], dark=1.0) as line:
        with serving(site.trainer), running(site.make(line.port)):
            assert negated(site.exchange(link, "cut", flat), flat)
        assert line.happened == 1
        way = cut[0]
        assert line.total[way] < flat["float32"].nbytes + chunks_again * CHUNK + 500_000
    assert site.trainer.trained == ["cut"]


def test_a_cut_while_nothing_happens_is_healed_before_the_next_task(site, world) -> None:
    with world.start() as link, Line(link.port) as line, serving(site.trainer), running(site.make(line.port)):
        assert negated(site.exchange(link, "one", weights(0, 10)), weights(0, 10))
        line.darken(2)
        until(lambda: trouble(site.home) == "cut")
        assert negated(site.exchange(link, "two", weights(1, 10)), weights(1, 10))
        assert status(site.home)["last_problem"]["code"] == "cut"


def slow_line(site: Site, world: Any, n: int, rate: float, dark: float, seconds: float) -> None:
    flat = weights(0, n)
    size = flat["float32"].nbytes
    cuts = [("down", int(0.4 * size)), ("up", size // 4), ("up", size // 4), ("down", 100)]
    with world.start() as link, Line(link.port, rate=rate, cuts=cuts, dark=dark) as line:
        with serving(site.trainer), running(site.make(line.port)):
            assert negated(site.exchange(link, "slow", flat, seconds), flat)
            assert link.fleet.online()  # heartbeats went on meanwhile
        assert line.happened >= 3
        assert line.total["up"] < size + 3 * CHUNK + 2_000_000
        assert line.total["down"] < size + 2 * CHUNK + 2_000_000
    assert site.trainer.trained == ["slow"]


def test_a_slow_line_that_breaks_delivers(site, world) -> None:
    slow_line(site, world, 5_000_000, 12e6, 0.5, 120)


@pytest.mark.full
def test_100_mb_over_1_mb_a_second_with_cuts_of_a_minute(site, world) -> None:
    slow_line(site, world, 25_000_000, 1e6, 60, 1500)


class Hours:
    """A clock on which waiting costs nothing."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        with self._lock:
            self._now += seconds if threading.current_thread().name == "site-link" else 0
        return event.wait(min(seconds, 0.002))


def test_a_night_without_network(site, world, caplog) -> None:
    caplog.set_level(logging.INFO, "fedscan.link")
    clock = Hours()
    with world.start() as link:
        with Line(link.port) as line:
            port = line.port
        with serving(site.trainer), running(site.make(port), clock=clock):
            until(lambda: clock.now() > 8 * 3600, 300)
            assert trouble(site.home) == "refused"
            assert status(site.home)["problems"]["coordinator"]["tries"] > 500
            assert sum("refused" in r.getMessage() for r in caplog.records) < 40
            join_again(site.home, site.keys, world.authority.path, HOST, link.port)
            assert negated(site.exchange(link, "at last", weights(0, 10)), weights(0, 10))
    assert any("answers again after" in r.getMessage() for r in caplog.records)


# Answers that are no answers

PROTOBUF = {"content-type": "application/protobuf"}
HUGE = 200 * 1024 * 1024
ANSWERS: dict[str, tuple[str, Rule]] = {
    "500": ("coordinator", lambda _: (500, {"content-length": "0"}, b"")),
    "503": ("coordinator", lambda _: (503, {"retry-after": "1", "content-length": "0"}, b"")),
    "429": ("rate", lambda _: (429, {"retry-after": "1", "content-length": "0"}, b"")),
    "404": ("address", lambda _: (404, {"content-length": "0"}, b"")),
    "418": ("status", lambda _: (418, {"content-length": "0"}, b"")),
    "401": ("signature", lambda _: (401, {"content-length": "0"}, b"")),
    "not protobuf": ("answer", lambda _: (200, {**PROTOBUF, "content-length": "9"}, b"\xff" * 9)),
    "compressed": ("encoding", lambda _: (200, {**PROTOBUF, "content-encoding": "gzip"}, gzip.compress(b"0" * 9**7))),
    "without a length": ("size", lambda _: (200, {**PROTOBUF}, b"\0" * 100)),
    "too long": ("size", lambda _: (200, {**PROTOBUF, "content-length": str(HUGE)}, b"\0" * 70_000)),
    "many headers": ("answer", lambda _: (200, {**PROTOBUF, **{f"x-{i}": "y" for i in range(200)}}, b"")),
    "long headers": ("size", lambda _: (200, {**PROTOBUF, **{f"x-{i}": "y" * 60_000 for i in range(9)}}, b"")),
    "long words": ("coordinator", lambda _: (500, {"content-type": "application/json"}, b'"' + b"\x1b[31m" * 99_999)),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_no_answer_ends_the_link(site, world, what: str) -> None:
    code, rule = ANSWERS[what]
    link = world.start()
    lies = lying(link, lambda verb: rule(verb) if verb == "pull-messages" else None)
    with link, serving(site.trainer), running(site.make()):
        until(lambda: trouble(site.home) == code)
        assert status(site.home)["problems"]["coordinator"]["remedy"]
        lies.rule = None
        assert negated(site.exchange(link, "after", weights(0, 10)), weights(0, 10))
    assert lies.told


@pytest.mark.parametrize("verb", ["activate-node", "pull-object", "confirm-message-received", "push-messages",
                                  "push-object", "send-node-heartbeat"])  # fmt: skip
def test_trouble_with_any_question_passes(site, world, verb: str) -> None:
    left = [500, 200, 503]

    def rule(asked: str) -> Any:
        if asked != verb or not left:
            return None
        status = left.pop(0)
        return status, {**PROTOBUF, "content-length": "3"}, b"\xff" * 3

    link = world.start()
    lies = lying(link, rule)
    with link, serving(site.trainer), running(site.make()):
        assert negated(site.exchange(link, "task", weights(0)), weights(0))
        # What is not confirmed is offered again, and its reply may be there before the next try.
        enough = 1 if verb == "confirm-message-received" else 3
        until(lambda: len(lies.told) >= enough)
    assert site.trainer.trained == ["task"]


def test_a_redirect_is_never_followed(site, world) -> None:
    """The canary listens where the redirect points; the update and the signature headers would go there."""
    link = world.start()
    with ConnectProxy() as canary:
        where = {"location": f"http://{HOST}:{canary.port}/", "content-length": "0"}
        lies = lying(link, lambda verb: (307, where, b"") if verb == "push-object" else None)
        with link, serving(site.trainer), running(site.make()):
            sent = site.send(link, "task", weights(0, 10))
            until(lambda: trouble(site.home) == "redirect")
            lies.rule = None
            assert negated(answer(link, sent), weights(0, 10))
        assert canary.asked == []


# Who may take part


def test_revoked_then_taken_back_and_a_certificate_renewed_without_a_stop(site, world) -> None:
    with world.start() as link, serving(site.trainer), running(site.make()):
        assert negated(site.exchange(link, "one", weights(0, 10)), weights(0, 10))
        world.revoke(site.keys)
        until(lambda: trouble(site.home) == "forbidden")
        assert "revoked" in status(site.home)["problems"]["coordinator"]["what"]
        # The coordinator issues a new certificate to the same node key; the site installs it.
        pem, secret, sha256 = world.authority.issue("oslo-2")
        old = world.enrolment.records.pop(site.keys.sha256)
        world.enrolment.records[sha256] = replace(old, revoked=False)
        fresh = replace(site.keys, certificate=pem, secret=secret, sha256=sha256)
        join_again(site.home, fresh, world.authority.path, HOST, link.port, generation=2)
        assert negated(site.exchange(link, "two", weights(1, 10)), weights(1, 10))


def test_an_expired_certificate_is_explained(site, world) -> None:
    with world.start() as link, serving(site.trainer):
        record = world.enrolment.records[site.keys.sha256]
        world.enrolment.records[site.keys.sha256] = replace(record, expires=datetime.now(UTC) - timedelta(days=1))
        with running(site.make(link.port)):
            until(lambda: trouble(site.home) == "forbidden")
            assert "expired" in status(site.home)["problems"]["coordinator"]["what"]


def test_another_process_with_the_same_keys_waits_and_says_so(site, world, tmp_path) -> None:
    with world.start() as link, serving(site.trainer), running(site.make()):
        until(link.fleet.online)
        copy = make_home(tmp_path / "copy", site.keys, world.authority.path, HOST, link.port)
        with running(copy):
            until(lambda: trouble(copy) == "two")
            assert negated(site.exchange(link, "mine", weights(0, 10)), weights(0, 10))
            with pytest.raises(FedscanError, match="running already"), running_here(site.home) as again:
                again.run()


@contextmanager
def running_here(home: Path) -> Iterator[Any]:
    from client.link import Link

    yield Link(home)


def test_a_coordinator_of_another_authority_gets_nothing(site, world, tmp_path) -> None:
    other = type(world)(tmp_path / "other")
    (tmp_path / "other").mkdir(exist_ok=True)
    other.enrol("oslo")
    with other.start() as link, running(site.make(link.port)):
        until(lambda: trouble(site.home) == "tls-server")
        assert not link.fleet.online()


def test_tls_1_2_and_plain_http_are_refused(site, world) -> None:
    world.start()
    world.link._socket.close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.folder / "ca" / "server.pem", world.folder / "ca" / "server.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with ConnectProxy(context=context) as old, ConnectProxy() as plain:
        with running(site.make(old.port)):
            until(lambda: trouble(site.home) == "tls-version")
        with running(site.make(plain.port)):
            until(lambda: (trouble(site.home) or "").startswith("tls"))
        assert old.asked == []
        assert [line for line in plain.asked if "fleet" in line] == []


# Proxies


@pytest.mark.parametrize("login", [None, PROXY_LOGIN])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_through_a_proxy(site, world, scheme: str, login: str | None, tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    authority = type(world.authority)(tmp_path / "proxy-ca")
    certificate, key, _ = authority.issue("proxy", server=True)
    context = None
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    with world.start() as link, ConnectProxy(login, context) as proxy, serving(site.trainer):
        url = f"{scheme}://{login + '@' if login else ''}{HOST}:{proxy.port}"
        network = Network(proxy=url, proxy_ca=authority.path if context else None)
        with running(site.make(), network):
            assert negated(site.exchange(link, "task", weights(0)), weights(0))
        assert set(proxy.asked) == {f"CONNECT {HOST}:{link.port} HTTP/1.1"}
    told = caplog.text + Mailbox(site.home).link_status.read_text() + repr(network)
    assert "s3cr3t" not in told


def test_a_proxy_that_wants_a_login_or_shows_an_unknown_certificate_is_explained(site, world, tmp_path, caplog) -> None:
    authority = type(world.authority)(tmp_path / "proxy-ca")
    certificate, key, _ = authority.issue("proxy", server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with world.start(), ConnectProxy(PROXY_LOGIN) as closed, ConnectProxy(context=context) as secure:
        with running(site.make(), Network(proxy=f"http://oslo:wr0ng@{HOST}:{closed.port}")):
            until(lambda: trouble(site.home) == "proxy-login")
        with running(site.make(), Network(proxy=f"https://{HOST}:{secure.port}")):
            until(lambda: trouble(site.home) == "tls-server")
            assert "the proxy" in status(site.home)["problems"]["coordinator"]["what"]
    assert "wr0ng" not in caplog.text + Mailbox(site.home).link_status.read_text()


def test_the_proxys_authority_does_not_count_for_the_coordinator(site, world, tmp_path) -> None:
    """A proxy that opens TLS: what it shows for the coordinator comes from its own authority."""
    spying = type(world)(tmp_path / "spy")
    spying.enrol("oslo")
    certificate, key, _ = spying.authority.issue("proxy", server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with spying.start() as spy, ConnectProxy(context=context) as proxy:
        network = Network(proxy=f"https://{HOST}:{proxy.port}", proxy_ca=spying.authority.path)
        with running(site.make(spy.port), network):
            until(lambda: trouble(site.home) == "tls-server")
        assert not spy.fleet.online()


def test_what_the_environment_says_of_proxies_is_not_used(site, world, monkeypatch) -> None:
    with ConnectProxy() as proxy, world.start() as link, serving(site.trainer):
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://{HOST}:{proxy.port}")
        with running(site.make()):
            assert negated(site.exchange(link, "task", weights(0, 10)), weights(0, 10))
        assert proxy.asked == []


# The real process, killed


@contextmanager
def process(home: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """`fedscan site link`, as often as it is started."""
    (home / "site.yaml").write_text("name: oslo\ndata: scans\n")
    command = [sys.executable, "-c", "from common.cli import main; main()", "site", "link", "--home", str(home)]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL))
        return started[-1]

    try:
        yield start
    finally:
        for child in started:
            child.kill()
            child.wait()


def killed_at(site: Site, world: Any, moment: str, n: int) -> None:
    flat = weights(0, n)
    size = flat["float32"].nbytes
    working = threading.Event()
    site.trainer.work_on = lambda _: None if working.wait(60) else "E_DATA"
    with world.start() as link, Line(link.port, rate=15e6) as line, serving(site.trainer):
        with process(site.make(line.port)) as start:
            child = start()
            sent = site.send(link, "killed", flat)
            part = site.home / "shared" / ".task.safetensors.part"
            if moment == "download":
                until(lambda: part.exists() and part.stat().st_size > CHUNK)
            else:
                until(lambda: site.trainer.asked)
            if moment == "upload":
                working.set()
                until(lambda: line.total["up"] > CHUNK + CHUNK // 2)
            child.send_signal(signal.SIGKILL)
            child.wait()
            working.set()
            start()
            assert negated(answer(link, sent, 90), flat)
        # The former process holds the node for 20 s, and then the transfer goes on.
        assert line.total["down"] < size + 2 * CHUNK + 500_000
        assert line.total["up"] < size + 2 * CHUNK + 500_000
    assert site.trainer.trained == ["killed"]


@pytest.mark.parametrize("moment", ["download", "work", "upload"])
def test_kill_9_of_the_link(site, world, moment: str) -> None:
    killed_at(site, world, moment, 5_000_000)


def test_sigterm_ends_the_link_and_frees_the_node(site, world) -> None:
    with world.start() as link, process(site.make()) as start:
        child = start()
        until(link.fleet.online)
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
        assert not link.fleet.online()


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def memory(site: Site, world: Any, n: int) -> int:
    """Bytes by which the link grows when a task of n parameters crosses, after a small one."""
    with world.start() as link, serving(site.trainer), process(site.make()) as start:
        child = start()
        site.exchange(link, "small", weights(0, 1000))
        before = _peak(child.pid)
        assert negated(site.exchange(link, "large", weights(1, n), 300), weights(1, n))
        return _peak(child.pid) - before


def test_memory_of_a_few_chunks_whatever_the_task(site, world) -> None:
    assert memory(site, world, 15_000_000) < 6 * CHUNK


@pytest.mark.full
def test_memory_of_a_few_chunks_for_31_million_parameters(site, world) -> None:
    assert memory(site, world, 31_000_000) < 6 * CHUNK
