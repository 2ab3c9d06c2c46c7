"""Preflight against the coordinator's own link, with what can be wrong in a hospital put wrong for real."""

import json
import re
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

import client.desk.preflight
from client.desk.findings import Check
from client.desk.preflight import examine
from client.desk.service import start
from client.network.fleet import Fleet
from common import wire
from common.cli import run
from common.enrolment import request_fingerprint
from common.errors import StudyError
from common.manifests import ReplyHeader
from common.study import Study
from server.enrolment.identity import Coordinator
from server.enrolment.site_file import Enrolled
from server.service.coordinator import LinkConfig, ServerLink

STUDY = {
    "name": "s", "data": {"labels": ["lesion"]}, "plan": {"spacing": [1, 1, 1], "patch": [16, 16, 16]},
    "net": {"name": "unet", "width": 4, "levels": 2}, "training": {"steps": 1}, "rounds": {"number": 1},
}  # fmt: skip
PATIENTS = ("MUSTERMANN", "BJARNASON", "ROSSI", "NGUYEN")


class Federation:
    """A coordinator in this process, and one site that has joined and has cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "oslo"
        passphrase = folder / "passphrase"
        passphrase.write_text("correct horse battery\n")
        passphrase.chmod(0o600)
        self._file = ("--passphrase-file", passphrase)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        home = folder / "server"
        self.fedscan("server", "init", "--host", "127.0.0.1", "--port", self.port, "--home", home, *self._file)
        self.coordinator = Coordinator(home)
        self.fedscan("site", "init", "--name", "oslo", "--home", self.site)
        request = self.site / "oslo-request.json"
        shown = request_fingerprint(request.read_bytes())
        add = ("server", "site", "add", request, "--name", "oslo", "--yes", shown, "--out", folder / "oslo.join")
        self.fedscan(*add, "--home", home, *self._file)
        self.fedscan("site", "join", folder / "oslo.join", "--home", self.site, "--yes", self.coordinator.fingerprint())
        for name, kind in (("_0000", "imagesTr"), ("", "labelsTr")):
            (folder / "scans" / kind).mkdir(parents=True)
            for patient in PATIENTS:
                volume = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
                nib.save(volume, folder / "scans" / kind / f"{patient}{name}.nii.gz")
        self.settings(approval={"rule": "signer"}, data=str(folder / "scans"), device="cpu")

    def fedscan(self, *arguments: object) -> None:
        assert run([str(a) for a in arguments]) == 0

    def settings(self, **changes: object) -> None:
        path = self.site / "site.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    def link(self) -> ServerLink:
        own = self.coordinator
        config = LinkConfig(
            own.tls_certificate_path,
            own.tls_key_path,
            own.authority_path,
            self.folder / "inbox",
            "127.0.0.1",
            self.port,
        )
        return ServerLink(config, Enrolled(own.enrolment_folder))

    def checks(self, **what: object) -> dict[str, Check]:
        return {check.name: check for check in examine(self.site, **what)}  # type: ignore[arg-type]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def wrong(checks: dict[str, Check]) -> dict[str, str]:
    return {c.name: f"{c.what} {c.remedy}" for c in checks.values() if c.state == "problem"}


def test_all_well(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    with federation.link():
        capsys.readouterr()
        assert run(["site", "preflight", "--home", str(federation.site), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert run(["site", "preflight", "--home", str(federation.site)]) == 0
    assert told["well"] is True
    names = [check["name"] for check in told["checks"]]
    assert names == [
        "versions", "site.yaml", "link keys", "trainer keys", "certificate", "proxy", "name", "way", "TLS", "let in",
        "clock", "other routes", "strangers", "disk", "device", "data", "room", "processes",
    ]  # fmt: skip
    assert {check["state"] for check in told["checks"]} == {"ok"}
    assert next(check["what"] for check in told["checks"] if check["name"] == "TLS").startswith("TLSv1.3; ")
    assert "all well; next: fedscan site start" in capsys.readouterr().out


def test_no_patient_is_named(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["site", "preflight", "--home", str(federation.site), "--part", "trainer"]) == 0
    printed = capsys.readouterr().out
    assert "4 cases of 4 patients (layout nnunet), 4 with a label" in printed
    assert [name for name in PATIENTS if name in printed] == []


def test_what_the_layout_says_of_a_case_is_not_repeated(federation: Federation, tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("case,image,label\nMUSTERMANN,a.nii.gz,b.nii.gz\nMUSTERMANN,a.nii.gz\n")
    federation.settings(data=str(table))
    said = " ".join(f"{c.what} {c.remedy}" for c in federation.checks(part="trainer").values())
    assert "MUSTERMANN" not in said
    assert federation.checks(part="trainer")["data"].state == "problem"


def test_who_runs_apart_checks_its_own(federation: Federation) -> None:
    with federation.link():
        link, trainer = federation.checks(part="link"), federation.checks(part="trainer")
    assert not wrong(link)
    assert not wrong(trainer)
    assert {"trainer keys", "data", "device"} & set(link) == set()
    assert {"link keys", "certificate", "TLS", "let in"} & set(trainer) == set()


def test_a_coordinator_that_is_down(federation: Federation) -> None:
    found = federation.checks(part="link")
    assert "nothing listens" in wrong(found)["way"]
    assert found["TLS"].state == "skipped"


def test_a_name_that_nobody_knows(federation: Federation) -> None:
    path = federation.site / "federation.json"
    path.write_text(path.read_text().replace("127.0.0.1", "nowhere.invalid"))
    assert "not known here" in wrong(federation.checks(part="link"))["name"]


def test_a_site_that_was_revoked(federation: Federation) -> None:
    with federation.link():
        federation.fedscan("server", "site", "revoke", "oslo", "--yes", "--home", federation.coordinator.home)
        assert "revoked" in wrong(federation.checks(part="link"))["let in"]


def test_a_running_link_does_not_notice(federation: Federation) -> None:
    with federation.link():
        fleet = Fleet(federation.site)
        node = fleet.activate()
        assert not wrong(federation.checks(part="link"))
        assert fleet.heartbeat(node)
        fleet.deactivate(node)
        fleet.close()


class Stranger:
    """A TLS server with the coordinator's own certificate that lets everyone in and lives at another time."""

    def __init__(self, federation: Federation, date: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return date

            def log_message(self, *args: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", federation.port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own = federation.coordinator
        context.load_cert_chain(own.tls_certificate_path, own.tls_key_path)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    def __enter__(self) -> None:
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_a_gate_that_lets_everyone_in_and_another_time(federation: Federation) -> None:
    with Stranger(federation, "Tue, 01 Jan 2030 12:00:00 GMT"):
        found = wrong(federation.checks(part="link"))
    assert set(found) == {"let in", "clock", "other routes", "strangers"}
    assert "behind" in found["clock"]
    assert "NTP" in found["clock"]


def test_another_authority(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Federation(tmp_path / "other")
    other.port = federation.port
    with other.link():
        assert "certificate that does not count" in wrong(federation.checks(part="link"))["TLS"]


def test_keys_that_others_may_read(federation: Federation) -> None:
    (federation.site / "trainer" / "reply-1.pem").chmod(0o644)
    (federation.site / "link").chmod(0o755)
    found = wrong(federation.checks())
    assert "reply-1.pem" in found["trainer keys"]
    assert "others may read" in found["link keys"]
    assert "chmod 700" in found["link keys"]


def test_settings_and_data(federation: Federation, tmp_path: Path) -> None:
    federation.settings(operators={"group": "absent-group"})
    assert "no group absent-group" in wrong(federation.checks(part="trainer"))["site.yaml"]
    federation.settings(operators={}, data=str(tmp_path / "nowhere"))
    assert "does not exist" in wrong(federation.checks(part="trainer"))["data"]
    (tmp_path / "empty").mkdir()
    federation.settings(data=str(tmp_path / "empty"))
    assert "no cases can be listed" in wrong(federation.checks(part="trainer"))["data"]
    federation.settings(device="cuda:7")
    assert "cannot be used" in wrong(federation.checks(part="trainer"))["device"]
    (federation.site / "site.yaml").write_text("name: oslo\ndata: x\nlayuot: bids\n")
    found = federation.checks()
    assert "site.yaml:3: layuot" in wrong(found)["site.yaml"]
    assert (found["connection"].state, found["data"].state) == ("skipped", "skipped")
    # The same mistake is found before anything starts.
    with pytest.raises(StudyError, match=r"site\.yaml:3: layuot"):
        start(federation.site, False, "text")


def test_labels_are_held_against_a_study(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    assert federation.checks(part="trainer", study=tmp_path / "study.yaml")["labels"].state == "ok"
    federation.settings(labels={"tumour": 1})
    assert "tumour" in wrong(federation.checks(part="trainer", study=tmp_path / "study.yaml"))["labels"]


def test_before_joining(tmp_path: Path) -> None:
    assert run(["site", "init", "--name", "oslo", "--home", str(tmp_path / "oslo")]) == 0
    found = {check.name: check for check in examine(tmp_path / "oslo")}
    assert "fedscan site join" in wrong(found)["certificate"]
    assert found["connection"].state == "skipped"


def test_too_little_room(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is asked for is more than any disk of a test machine has: the disk itself is real.
    monkeypatch.setattr(client.desk.preflight, "FREE", 10**18)
    assert "Make room" in wrong(federation.checks(part="trainer"))["disk"]


def test_the_guide_lists_what_leaves_and_nothing_else(federation: Federation) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "hospital.md").read_text(encoding="utf-8")
    section = guide.partition("## What leaves the building")[2].partition("\n## ")[0]
    study = Study.model_validate({**STUDY, "data": {"labels": ["label"]}})
    metrics = wire.JOIN_METRIC_KEYS | wire.train_metric_keys(study) | wire.evaluate_metric_keys(study)
    metrics |= wire.RESULT_METRIC_KEYS
    fleet = Fleet(federation.site)
    headers = set(fleet._headers(fleet._now())) - {"Content-Type", "Accept"}
    leaves = {key.replace(".label", ".LABEL") for key in metrics} | headers | set(ReplyHeader.model_fields)
    named = set(re.findall(r"`([^`]+)`", section))
    files = {"NAME-request.json", "NAME.join", "common/wire.py", "common/manifests.py", "cache/", "trainer/runs/",
             "trainer/errors.log"}  # fmt: skip
    assert named - files - {"E_DATA"} == leaves
    assert "E_DATA" in wire.ERROR_CODES
