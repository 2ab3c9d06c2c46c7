"""The coordinator as one process, its operator's commands, and sites that answer from this one over real TLS.

The sites have real keys and sign what they send; instead of training they add one to every weight.
"""

import io
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import yaml
from cryptography import x509
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from safetensors.numpy import load_file

from client.desk.joining import install, read_answer
from client.identity import Identity, make_keys
from common import wire
from common.bundle import read_bundle
from common.cli import run as run_command
from common.enrolment import read_request
from common.errors import StudyError
from common.manifests import ReplyHeader, arrays_sha256, metrics_sha256, read_assignment, sign_reply
from common.study import load_study
from server.checkpoint import Checkpoints
from server.enrolment.enrolled import Enrolment
from server.enrolment.identity import Coordinator, create
from server.events import read_events
from server.service.control import MODE, SERVICE, SOCKET, ControlClient, NoServerError
from server.service.run_desk import signed_study

ROOT = Path(__file__).parents[2]
FEDSCAN = [sys.executable, "-P", "-c", "from common.cli import main; main()"]
STUDY: dict[str, Any] = {
    "name": "toy", "data": {"labels": ["a", "b"], "dimensions": 2}, "plan": {"patch": [16, 16]},
    "evaluation": {"metrics": ["dice"], "spread": "none"},
    "training": {"steps": 2}, "net": {"name": "unet", "width": 2, "levels": 2}, "rounds": {"number": 3},
}  # fmt: skip
COUNTS = {"train": 4, "validation": 1, "test": 1, "patients": 6, "steps": 2}
UPDATE = {"num-examples": 4, "steps": 2, "loss": 0.5, "seconds": 0.1}


def until(done: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
    return found


class Federation:
    """A coordinator's home, its process, and the sites."""

    def __init__(self, folder: Path, fleet_end: type) -> None:
        self.folder, self.home = folder, folder / "home"
        self._fleet_end = fleet_end
        self._passphrase = folder / "passphrase"
        self._passphrase.write_text("a long passphrase\n")
        self._passphrase.chmod(0o600)
        self.coordinator = create(self.home, ["127.0.0.1"], 8443, b"a long passphrase")
        self.environment = {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FEDSCAN_SERVER_HOME": str(self.home),
            "FEDSCAN_PASSPHRASE_FILE": str(self._passphrase), "COLUMNS": "160",
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def fedscan(self, *arguments: object, code: int = 0) -> str:
        """Run a command to its end, in this process; what it said."""
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said), pytest.MonkeyPatch.context() as patch:
            for key, value in self.environment.items():
                patch.setenv(key, value)
            found = run_command([str(a) for a in arguments])
        assert found == code, f"{arguments}: {found}\n{said.getvalue()}"
        return said.getvalue()

    def enrol(self, name: str) -> None:
        home = self.folder / name
        home.mkdir()
        applicant = read_request(make_keys(home, name))
        authority = self.coordinator.unlock(b"a long passphrase").authority
        joined = Enrolment(self.coordinator.enrolment_folder, self.coordinator.card).add(applicant, name, authority)
        install(home, read_answer(home, joined.canonical()))

    def sign(self, name: str, **changes: Any) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}))
        self.fedscan("study", "sign", path, "--run", name)
        return path

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*FEDSCAN, "server", "start", "--foreground", "--port", "0", "--listen", "127.0.0.1", "--log", "json"],
                cwd=self.folder, env={**os.environ, **self.environment}, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with suppress(NoServerError), self.control() as client:
            return client.status().pid == self.process.pid
        return False

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(240)
        self.process = None
        return code

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def control(self) -> ControlClient:
        return ControlClient(self.home)

    def status(self) -> Any:
        with self.control() as client:
            return client.status()

    def statuses(self) -> dict[str, str]:
        with self.control() as client:
            return {s.record.name: s.record.status for s in client.runs().runs}

    def events(self, run: str, kind: str) -> list[dict[str, Any]]:
        return [e for e in read_events(self.home / "runs" / run / "events.jsonl") if e["event"] == kind]

    @contextmanager
    def sites(self, *names: str, holds: Callable[[Any], bool] = lambda _: False) -> Iterator[dict[str, "Site"]]:
        """The sites answer while the block goes on; tasks of which `holds` is true are kept and not answered."""
        made = {n: Site(self._fleet_end, self.folder / n, self.status().port, holds) for n in names}
        try:
            yield made
        finally:
            for site in made.values():
                site.close()


class Site:
    """A site in a thread."""

    def __init__(self, fleet_end: type, home: Path, port: int, holds: Callable[[Any], bool]) -> None:
        self._link, self._trainer = Identity(home).link_credentials(), Identity(home).trainer_credentials()
        self._holds = holds
        context = ssl.create_default_context(cafile=self._link.authority)
        context.load_cert_chain(self._link.certificate, self._link.tls_key)
        world = SimpleNamespace(link=SimpleNamespace(port=port), tls=lambda _: context)
        self._end = fleet_end(world, SimpleNamespace(node=self._link.node_key))
        self._end.activate()
        self.tasks: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(httpx.HTTPError):  # the server may be gone, or have shut the site out
            self._end.deactivate()
        self._end.close()

    def _serve(self) -> None:
        beat = 0.0
        with suppress(httpx.TransportError):  # the server was killed: that is what the test is about
            while not self._stop.wait(0.05):
                with suppress(httpx.HTTPStatusError):  # a task that is not open any more
                    if time.monotonic() > beat + 3:
                        self._end.fleet.SendNodeHeartbeat(
                            SendNodeHeartbeatRequest(node=self._end.node, heartbeat_interval=10)
                        )
                        beat = time.monotonic()
                    pulled = self._end.poll()
                    if pulled.messages_list:
                        self._end.run = pulled.messages_list[0].metadata.run_id
                        wire.become(self._end.run, self._end.node.node_id)
                        self._answer(self._fetch(pulled))

    def _fetch(self, pulled: Any) -> Message:
        tree = pulled.message_object_trees[0]
        contents = {t.object_id: self._end.pull_object(t.object_id) for t in iterate_object_tree(tree)}
        message: Message = inflate_object_from_contents(tree.object_id, contents)
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def _answer(self, message: Message) -> None:
        assignment = read_assignment(message.content[wire.ASSIGNMENT]["assignment"])
        manifest = SimpleNamespace(**json.loads(assignment.manifest.body))
        task = f"{manifest.run}/{manifest.round}/{manifest.kind}/{manifest.part}"
        if self._holds(manifest):
            return  # it is not confirmed, so it is handed out again
        self.tasks.append(task)
        metrics, flat = self._work(manifest, message)
        header = ReplyHeader(
            run=manifest.run, study=manifest.study, site=self._trainer.site, task=task,
            manifest=sha256(assignment.manifest.body.encode()).hexdigest(), base=manifest.base,
            payload=None if flat is None else arrays_sha256(flat), metrics=metrics_sha256(metrics), salt="0" * 64,
            software="0.1",
        )  # fmt: skip
        signed = sign_reply(self._trainer.reply_key, self._trainer.coordinator, header)
        content = RecordDict({wire.HEADER: ConfigRecord({"header": signed.canonical()}),
                              wire.METRICS: MetricRecord(metrics)})  # fmt: skip
        if flat is not None:
            content[wire.ARRAYS] = wire.record(flat)
        self._end.push(Message(content, reply_to=message))

    def _work(self, manifest: Any, message: Message) -> tuple[dict[str, Any], Any]:
        if manifest.kind == "join":
            return dict(COUNTS), None
        if manifest.kind == "train":
            arrays = message.content[wire.ARRAYS].items()
            return dict(UPDATE), {k: np.frombuffer(a.data, k) + np.ones(1, k) for k, a in arrays}
        scores = {"num-examples": 1, "dice": 0.1 * manifest.round, "seconds": 0.1}
        return scores | {f"{k}.{label}": v for label in "ab" for k, v in (("dice", 0.1), ("cases", 1))}, None


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, fleet_end: type) -> Iterator[Federation]:
    made = Federation(tmp_path_factory.mktemp("fed"), fleet_end)
    for name in ("oslo", "rome"):
        made.enrol(name)
    made.start()
    yield made
    if made.process is not None:
        assert made.kill(signal.SIGTERM) == 0, made.log()


def weights(federation: Federation, run: str, number: int) -> Any:
    study = load_study(federation.folder / f"{run}.yaml")
    return Checkpoints(federation.home / "runs" / run / "checkpoints", study.digest(), wire.Schema.of(study)).weights(
        number
    )


def test_a_run_from_the_queue_to_its_report(federation: Federation) -> None:
    study = federation.sign("whole")
    assert "in the queue" in federation.fedscan("run", "start", study)
    with federation.sites("oslo", "rome"):
        said = federation.fedscan("run", "watch", "whole")
    for part in ("oslo joined with 4 training cases", "round 3: rome trained", "whole is finished", "finished in"):
        assert part in said
    # Later, too, from the beginning.
    lines = [json.loads(line) for line in federation.fedscan("run", "watch", "whole", "--json").splitlines()]
    assert [e for e in lines if "record" not in e] == read_events(federation.home / "runs" / "whole" / "events.jsonl")
    listed = json.loads(federation.fedscan("run", "list", "--json"))["runs"]
    assert [(s["record"]["status"], s["progress"]["round"]) for s in listed if s["record"]["name"] == "whole"] == [
        ("finished", 3)
    ]
    out = federation.folder / "out"
    printed = federation.fedscan("run", "report", "whole", "--out", out).split()
    assert all(Path(line).is_file() for line in printed)
    card = json.loads((out / "model" / "card.json").read_text())
    assert card["digest"] == load_study(study).digest()
    # Opened, every byte is held against the hash in its card.
    figures = read_bundle(out / "model").card.figures
    assert figures.round == 3
    assert figures.validation is not None
    assert figures.validation.dice == pytest.approx(0.3)
    # Every round adds one to every weight: the oracle for what the model must hold.
    first = weights(federation, "whole", 3)["float32"] - 3
    tensors = load_file(out / "model" / "weights.safetensors")
    total = sum(float(t.sum(dtype="float64")) for t in tensors.values() if t.dtype == np.float32)
    assert total == pytest.approx(float((first + 3).sum(dtype="float64")))
    assert "whole" in (out / "report.html").read_text()
    with federation.control() as client, pytest.raises(StudyError, match="is finished already"):
        client.start(signed_study(study), None)


def test_a_killed_server_goes_on_with_its_run_and_its_queue(federation: Federation) -> None:
    held = threading.Event()

    def hold(manifest: Any) -> bool:
        if manifest.run == "killed" and manifest.round == 2 and manifest.kind == "train":
            held.set()
            return True
        return False

    for run in ("killed", "second", "third"):
        federation.fedscan("run", "start", federation.sign(run))
    with federation.sites("oslo", "rome", holds=hold):
        assert held.wait(240)
        assert federation.statuses() | {"whole": ""} == {
            "whole": "", "killed": "running", "second": "queued", "third": "queued"
        }  # fmt: skip
        assert federation.kill() == -signal.SIGKILL
    with pytest.raises(NoServerError, match="fedscan server start"):
        federation.status()
    assert "fedscan server start" in federation.fedscan("run", "list", code=1)
    federation.start()
    assert federation.status().open.record.name == "killed"
    assert federation.status().queued == ("second", "third")
    with federation.sites("oslo", "rome") as sites:
        until(lambda: federation.statuses()["third"] == "finished")
    # The round before the kill was not asked for again, and nothing was lost.
    assert "killed/1/train/train" not in sites["oslo"].tasks
    assert "killed/2/train/train" in sites["oslo"].tasks
    order = list(dict.fromkeys(task.partition("/")[0] for task in sites["oslo"].tasks if "/result/" not in task))
    assert order == ["killed", "second", "third"]
    np.testing.assert_array_equal(
        weights(federation, "killed", 3)["float32"], weights(federation, "second", 3)["float32"]
    )


def test_a_run_is_left_when_the_server_ends_in_order(federation: Federation) -> None:
    federation.fedscan("run", "start", federation.sign("left"))
    with federation.sites("oslo", "rome", holds=lambda m: m.run == "left" and m.round == 2):
        until(lambda: federation.events("left", "checkpoint"))
        federation.fedscan("server", "stop")
        assert federation.process is not None
        assert federation.process.wait(120) == 0, federation.log()
    record = json.loads((federation.home / "runs" / "left" / "run.json").read_text())
    assert record["status"] == "running"
    assert not (federation.home / SOCKET).exists()
    federation.start()
    with federation.sites("oslo", "rome"):
        until(lambda: federation.statuses()["left"] == "finished")
    logged = [json.loads(line) for line in federation.log().splitlines()]
    assert {"ended", "run left is left"} <= {line["message"] for line in logged}


def test_abort_and_resume(federation: Federation) -> None:
    with federation.sites("oslo", "rome", holds=lambda m: m.run == "stopped" and m.round == 2 and not resumed.is_set()):
        resumed = threading.Event()
        federation.fedscan("run", "start", federation.sign("stopped"))
        federation.fedscan("run", "start", federation.sign("next"))
        until(lambda: federation.events("stopped", "checkpoint"))
        assert "run resume stopped" in federation.fedscan("run", "abort", "stopped")
        # The next one goes on by itself.
        until(lambda: federation.statuses()["next"] == "finished")
        assert federation.statuses()["stopped"] == "aborted"
        assert "run resume stopped" in federation.fedscan("run", "watch", "stopped", code=1)
        assert "is aborted" in federation.fedscan("run", "abort", "stopped", code=2)
        resumed.set()
        federation.fedscan("run", "resume", "stopped")
        assert "goes on after round 1" in federation.fedscan("run", "watch", "stopped")
    assert federation.statuses()["stopped"] == "finished"
    assert "is finished" in federation.fedscan("run", "resume", "stopped", code=2)


def test_a_missed_quorum_fails_the_run_and_resume_goes_on(federation: Federation) -> None:
    federation.enrol("late")
    here = threading.Event()
    study = federation.sign("quorum", rounds={"number": 2, "quorum": 1.0, "deadline": 15.0})
    with federation.sites("oslo", "late", holds=lambda m: m.kind == "train" and m.round == 2 and not here.is_set()):
        federation.fedscan("run", "start", study, "--sites", "oslo,late")
        said = federation.fedscan("run", "watch", "quorum", code=1)
        assert "0 of 2 sites sent a usable update" in said
        assert "no answer before the deadline" in said
        failed = federation.statuses()["quorum"]
        here.set()
        federation.fedscan("run", "resume", "quorum")
        until(lambda: federation.statuses()["quorum"] == "finished")
    assert failed == "failed"
    assert federation.events("quorum", "started")[0]["sites"] == ["late", "oslo"]


def test_enrolment_and_certificate_count_without_a_restart(federation: Federation) -> None:
    federation.enrol("guest")
    with federation.sites("oslo", "guest"):
        connected = {s.name: s.connected for s in federation.status().sites}
        assert connected["guest"]
        assert not connected["rome"]
        federation.fedscan("server", "site", "revoke", "guest", "--yes")
        until(lambda: "revoked" in {r.why.split()[-1] for r in federation.status().turned if r.who == "guest"})
    told = federation.fedscan("server", "status")
    assert "this site's enrolment was revoked" in told
    assert json.loads(federation.fedscan("server", "status", "--json"))["sites"][0] == {
        "name": "guest", "standing": "revoked", "connected": False,
        "expires": next(s.expires for s in federation.status().sites if s.name == "guest").isoformat().replace(
            "+00:00", "Z"),
    }  # fmt: skip
    before = served_certificate(federation)
    federation.fedscan("server", "renew")
    renewed = until(lambda: (found := served_certificate(federation)) != before and found)
    assert renewed == Coordinator(federation.home).server_certificate()


def served_certificate(federation: Federation) -> x509.Certificate:
    """What a client is shown; the server asks for the client's own only after that (TLS 1.3)."""
    text = ssl.get_server_certificate(("127.0.0.1", federation.status().port))
    return x509.load_pem_x509_certificate(text.encode())


def test_a_second_server_is_refused(federation: Federation) -> None:
    for more in ((), ("--foreground", "--port", "0")):
        assert "runs already" in federation.fedscan("server", "start", *more, code=1)
    assert federation.status().pid == federation.process.pid  # type: ignore[union-attr]


def test_strangers_cannot_use_the_socket(federation: Federation) -> None:
    path = federation.home / SOCKET
    assert path.stat().st_mode & 0o777 == MODE == 0o600
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    with tempfile.TemporaryDirectory() as folder:
        # A folder that everybody may enter: only the socket's own mode is in the way.
        Path(folder).chmod(0o755)
        moved = Path(folder) / "control.sock"
        os.link(path, moved)
        connect = f"socket.socket(socket.AF_UNIX).connect({str(moved)!r})"
        leave = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
        mine, theirs = (
            subprocess.run(
                [sys.executable, "-c", f"import os, socket; {more}; {connect}"], capture_output=True, text=True,
                check=False,
            )
            for more in ("pass", leave)
        )  # fmt: skip
    assert mine.returncode == 0, mine.stderr
    assert "PermissionError" in theirs.stderr


HOSTILE = {
    "not JSON": ("Abort", b"\x00\xff", grpc.StatusCode.INVALID_ARGUMENT),
    "another form": ("Abort", b'{"run": 7}', grpc.StatusCode.INVALID_ARGUMENT),
    "an unknown key": ("Status", b'{"verbose": true}', grpc.StatusCode.INVALID_ARGUMENT),
    "a key twice": ("Abort", b'{"run": "a", "run": "b"}', grpc.StatusCode.INVALID_ARGUMENT),
    "nested deeply": ("Abort", b'{"run":' + b"[" * 100_000, grpc.StatusCode.INVALID_ARGUMENT),
    "oversized": ("Start", b" " * (5 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
    "an unknown method": ("Shell", b"{}", grpc.StatusCode.UNIMPLEMENTED),
    "not a run": ("Resume", b'{"run": "nothing"}', grpc.StatusCode.FAILED_PRECONDITION),
    "a watch of nothing": ("Watch", b'{"run": "nothing"}', grpc.StatusCode.FAILED_PRECONDITION),
    **{
        f"path {name}": (method, json.dumps({"run": name}).encode(), grpc.StatusCode.INVALID_ARGUMENT)
        for name in ("../../etc", "..", "/etc/passwd", "a/b", "a\0b", "a\n", "", "a" * 200)
        for method in ("Report", "Watch")
    },
}


@pytest.mark.parametrize(("method", "raw", "status"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_input(federation: Federation, method: str, raw: bytes, status: grpc.StatusCode) -> None:
    before = sorted(federation.home.rglob("*"))
    with grpc.insecure_channel(f"unix:{federation.home / SOCKET}") as channel:
        call = channel.unary_stream if method == "Watch" else channel.unary_unary
        with pytest.raises(grpc.RpcError) as found:
            list(call(f"/{SERVICE}/{method}")(raw, timeout=20))
    assert found.value.code() == status
    assert sorted(federation.home.rglob("*")) == before
    assert federation.status().well


def test_what_cannot_run_is_refused_in_words(federation: Federation) -> None:
    plain = federation.folder / "plain.yaml"
    plain.write_text(yaml.safe_dump(STUDY))
    assert "fedscan study sign" in federation.fedscan("run", "start", plain, code=2)
    changed = federation.sign("changed")
    changed.write_text(yaml.safe_dump({**STUDY, "seed": 7}))
    assert "was changed after" in federation.fedscan("run", "start", changed, code=2)
    study = federation.sign("refused")
    assert "not enrolled: paris" in federation.fedscan("run", "start", study, "--sites", "oslo,paris", code=2)
    raw = json.loads(study.with_suffix(".signed.json").read_text())
    raw["order"]["body"] = raw["order"]["body"].replace('"max_rounds":3', '"max_rounds":9')
    forged = federation.folder / "forged.signed.json"
    forged.write_text(json.dumps(raw))
    assert "signature of the run-order is wrong" in federation.fedscan("run", "start", forged, code=2)
    other = create(federation.folder / "other", ["127.0.0.1"], 8443, b"a long passphrase")
    theirs = federation.folder / "theirs.yaml"
    theirs.write_text(yaml.safe_dump(STUDY))
    federation.fedscan("study", "sign", theirs, "--home", other.home)
    assert "the signed study is refused" in federation.fedscan("run", "start", theirs, code=2)
    assert "refused" not in federation.statuses()


def test_in_the_background(tmp_path: Path, fleet_end: type) -> None:
    """Starts, answers, is seen, and ends; one that cannot start says why."""
    federation = Federation(tmp_path, fleet_end)

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **federation.environment}
        return subprocess.run(
            [*FEDSCAN, "server", *map(str, arguments)], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    started = command("start", "--listen", "127.0.0.1", "--port", 0)
    assert started.returncode == 0, started.stderr
    port = federation.status().port
    try:
        assert f"port {port}" in started.stdout
        other = create(tmp_path / "two", ["127.0.0.1"], 1, b"").home
        busy = command("start", "--home", other, "--listen", "127.0.0.1", "--port", port)
        assert busy.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in busy.stderr
    finally:
        stopped = command("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "no server runs" in command("stop").stderr
    assert (federation.home / "server.log").stat().st_mode & 0o777 == 0o600
