"""Real containers: what the compose files promise holds in them, and a study runs to its end through them."""

import json
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from client.app import make_app
from client.site import SiteConfig
from common.enrolment import request_fingerprint
from common.study import Study, load_study
from common.wire import Flat, Schema
from server.checkpoint import Checkpoints, State
from server.enrolment.identity import Coordinator
from server.events import read_events
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid
from simulations.sites import Field
from tests.deploy import composed
from tests.e2e import containers
from tests.e2e.containers import Container, Image, give_to_containers, health_check, runtime_config, wait_for_health
from tests.e2e.deployment import same, wait_until

GIVEN = {"FEDSCAN_SCANS": "/srv/scans"}
IMAGE = {"Entrypoint": ["fedscan"], "Env": ["PATH=/opt/fedscan/bin"], "WorkingDir": "/site"}
SERVICES = [("compose.site.yaml", s) for s in ("trainer", "link", "setup")] + [
    ("compose.server.yaml", s) for s in ("server", "setup")
]


# What runc is told, against what the compose file says


@pytest.mark.parametrize(("file", "name"), SERVICES)
def test_the_runtime_gets_every_restriction_of_the_compose_file(file: str, name: str) -> None:
    service = composed.services_of(file, GIVEN)[name]
    config = runtime_config(service, IMAGE, Path("/image"), Path("/here"))
    process = config["process"]
    assert config["root"] == {"path": "/image", "readonly": service["read_only"]}
    assert f"{process['user']['uid']}:{process['user']['gid']}" == service["user"]
    assert process["noNewPrivileges"] is ("no-new-privileges:true" in service["security_opt"])
    assert [c for kind in process["capabilities"].values() for c in kind] == []
    assert process["args"] == ["fedscan", *service["command"]]
    kinds = {n["type"] for n in config["linux"]["namespaces"]}
    assert ("network" in kinds) is (service.get("network_mode") == "none")
    assert {"pid", "ipc", "mount"} <= kinds
    binds = {m["destination"]: (m["source"], "rw" in m["options"]) for m in config["mounts"] if m["type"] == "bind"}
    expected = composed.mounts_of(service)
    assert {t: w for t, (_, w) in binds.items()} == {t: w for t, (_, w) in expected.items()}
    assert binds.get("/data", ("/srv/scans",))[0] == "/srv/scans"
    assert all(source.startswith(("/here/", "/srv/scans")) for source, _ in binds.values())
    assert config["linux"]["resources"]["pids"]["limit"] == service["pids_limit"]


def test_a_key_that_the_runtime_would_not_get_is_an_error() -> None:
    service = {**composed.services_of("compose.site.yaml", GIVEN)["link"], "privileged": True}
    with pytest.raises(AssertionError, match="privileged"):
        runtime_config(service, IMAGE, Path("/image"), Path("/here"))


# From inside

LOOK = """
import json, os, socket, sys
from pathlib import Path

def tried(call):
    try:
        call()
        return "done"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else type(error).__name__

def connect(address):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect(address)

def route(address):  # connecting a datagram socket asks for a route and sends nothing
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(address)

status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
seen = [str(p) for top in ("/data", "/site", "/tmp", "/home", "/srv", "/mnt", "/root") for p in Path(top).rglob("*")
        if os.access(top, os.R_OK)]
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "groups": os.getgroups(),
    "capabilities": [status[k].strip() for k in ("CapEff", "CapPrm", "CapBnd", "CapAmb")],
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "interfaces": sorted(l.split(":")[0].strip() for l in Path("/proc/net/dev").read_text().splitlines()[2:]),
    "loopback": tried(lambda: connect(("127.0.0.1", int(sys.argv[1])))),
    "outside": tried(lambda: route(("192.0.2.1", 9))),
    "write_root": tried(lambda: Path("/x").write_text("x")),
    "write_code": tried(lambda: Path("/opt/fedscan/x").write_text("x")),
    "write_data": tried(lambda: Path("/data/x").write_text("x")),
    "write_tmp": tried(lambda: Path("/tmp/x").write_text("x")),
    "seen": seen,
    "scans": [s for s in seen if s.endswith(".nii.gz") and os.access(s, os.R_OK)],
    "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    "programs": sorted(os.listdir("/opt/fedscan/bin")),
}))
"""


@pytest.fixture(scope="session")
def site_image() -> Iterator[Image]:
    if missing := containers.missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    image = Image(containers.build("site"))
    yield image
    image.close()


@pytest.fixture(scope="session")
def server_image() -> Iterator[Image]:
    if missing := containers.missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    image = Image(containers.build("server"))
    yield image
    image.close()


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A folder as the compose file expects it: site/ beside it, and scans."""
    site = tmp_path / "site"
    for folder in ("trainer", "link", "cache", "shared", "operators", "certificates"):
        (site / folder).mkdir(parents=True)
    for file in ("site.yaml", "federation.json", "link/node_key", "trainer/reply-1.pem"):
        (site / file).write_text("x")
    (tmp_path / "scans" / "images").mkdir(parents=True)
    (tmp_path / "scans" / "images" / "MUSTERMANN.nii.gz").write_text("a scan")
    containers.give_to_containers(site)
    return tmp_path


def look(image: Image, hospital: Path, name: str) -> dict[str, Any]:
    """What a process sees in the place of a service."""
    service = composed.services_of("compose.site.yaml", {"FEDSCAN_SCANS": str(hospital / "scans")})[name]
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = ["/opt/fedscan/bin/python", "-c", LOOK, str(server.getsockname()[1])]
        config = runtime_config(service, image.config, image.root, hospital, command)
        printed = Container(containers.unique_name(name), config, hospital / "runc").run()
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return found


@pytest.mark.full
@pytest.mark.parametrize("name", ["trainer", "link"])
def test_a_process_is_nobody_and_can_change_nothing(name: str, site_image: Image, hospital: Path) -> None:
    seen = look(site_image, hospital, name)
    assert (seen["user"], seen["groups"]) == ([10001, 10001], [])
    assert seen["capabilities"] == ["0" * 16] * 4
    assert seen["no_new_privileges"] == "1"
    assert (seen["write_root"], seen["write_code"]) == ("Read-only file system",) * 2
    assert seen["write_tmp"] == "done"
    assert seen["processes"] == [1]
    assert seen["programs"] == ["fedscan", "python", "python3", "python3.11"]


@pytest.mark.full
def test_from_inside_the_trainer_no_address_is_reachable(site_image: Image, hospital: Path) -> None:
    seen = look(site_image, hospital, "trainer")
    assert seen["interfaces"] == ["lo"]
    # A listener was there: the same question, asked from the link, reaches it.
    assert seen["loopback"] != "done"
    assert seen["outside"] == "Network is unreachable"
    assert seen["scans"] == ["/data/images/MUSTERMANN.nii.gz"]
    assert seen["write_data"] == "Read-only file system"
    assert [s for s in seen["seen"] if s.startswith("/site/link/")] == []


@pytest.mark.full
def test_from_inside_the_link_no_scan_is_readable(site_image: Image, hospital: Path) -> None:
    seen = look(site_image, hospital, "link")
    assert seen["loopback"] == "done"
    assert seen["scans"] == []
    assert [s for s in seen["seen"] if "MUSTERMANN" in s or s.startswith(("/data/", "/site/trainer/"))] == []
    assert "/site/link/node_key" in seen["seen"]
    assert "/site/shared" in seen["seen"]


@pytest.mark.full
def test_image_sizes(site_image: Image, server_image: Image) -> None:
    sizes = {"site": site_image.nbytes, "server": server_image.nbytes}
    print({name: f"{size / 1e9:.2f} GB" for name, size in sizes.items()})
    assert max(sizes.values()) <= 1.5e9
    for image in (site_image, server_image):
        assert image.config["User"] == "10001:10001"


# A federation

STUDY = {
    "name": "hippocampus",
    "data": {"channels": ["t1"], "labels": ["anterior", "posterior"]},
    "plan": {"spacing": [1, 1, 1], "patch": [24, 32, 24]},
    "net": {"name": "unet", "width": 4, "levels": 3, "norm": "batch"},
    "training": {"rate": 0.004, "batch": 2, "steps": 3},
    "strategy": {"name": "fedprox", "mu": 0.01},
    "rounds": {"number": 2},
    "evaluation": {"validation": 0.2, "test": 0.2},
}
SITES = ("group-byte", "group-mid")


class Machine:
    """One machine with a compose file: a hospital's, or the coordinator's."""

    def __init__(self, folder: Path, name: str, image: Image, file: str, scans: Path | None = None) -> None:
        self.folder = folder
        self.name = name
        self.image = image
        self.services = composed.services_of(file, {"FEDSCAN_SCANS": str(scans)} if scans else {})
        self.running: dict[str, Container] = {}
        self._typed = 0

    def container(self, service: str, command: Sequence[str] = (), tag: str = "") -> Container:
        config = runtime_config(self.services[service], self.image.config, self.image.root, self.folder, command)
        # As an .env file beside the compose file would: this coordinator is for this machine alone.
        home = "/coordinator" if (self.folder / "coordinator").is_dir() else "/site"
        config["process"]["env"] += ["FEDSCAN_SERVER_LISTEN=127.0.0.1", f"FEDSCAN_PASSPHRASE_FILE={home}/passphrase"]
        return Container(containers.unique_name(f"{self.name}{service}{tag}"), config, self.folder / "runc")

    def setup(self, *command: object) -> str:
        """`docker compose run --rm setup ...`."""
        self._typed += 1
        return self.container("setup", ["fedscan", *map(str, command)], str(self._typed)).run()

    def up(self, *services: str) -> None:
        for service in services:
            self.running[service] = self.container(service)
            self.running[service].start()
        for service in services:
            wait_for_health(self.running[service], health_check(self.services[service]), 600)

    def down(self) -> dict[str, int]:
        return {service: container.stop() for service, container in self.running.items()}


def few_scans(data: Path, folder: Path, site: str) -> None:
    """The first seven cases of a site, as the folders images/ and labels/."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for file in sorted((data / "hippocampus-mr-3d" / site / kind).glob("*.nii.gz"))[:7]:
            shutil.copy(file, folder / kind)


# Seven cases, and a few steps.
OPEN = "policy: {steps: 1, batch: 1, cases: 1, small: 1, digits: null}\n"


def hospital_of(folder: Path, name: str, image: Image, data: Path) -> Machine:
    few_scans(data, folder / "scans", name)
    for part in ("site/cache", "site/shared", "site/operators"):
        (folder / part).mkdir(parents=True)
    give_to_containers(folder / "site")
    machine = Machine(folder, name, image, "compose.site.yaml", folder / "scans")
    machine.setup("site", "init", "--name", name)
    settings = folder / "site" / "site.yaml"
    settings.write_text(f"name: {name}\ndata: /data\ndevice: cpu\napproval: {{rule: signer}}\n{OPEN}")
    return machine


def enrol(coordinator: Machine, site: Machine) -> None:
    """Two files travel, and two fingerprints are compared by telephone."""
    request = site.folder / "site" / f"{site.name}-request.json"
    office = coordinator.folder / "coordinator"
    shutil.copy(request, office)
    shown = request_fingerprint(request.read_bytes())
    add = ("server", "site", "add", request.name, "--name", site.name, "--yes", shown)
    coordinator.setup(*add)
    shutil.copy(office / f"{site.name}.join", site.folder / "site")
    site.setup("site", "join", f"{site.name}.join", "--yes", Coordinator(office).fingerprint())


def inline(study: Study, folder: Path, scans: dict[str, Path]) -> tuple[State, Flat]:
    """The same study simulated over the same scans."""
    configs = tuple(SiteConfig(name=name, data=path, device="cpu") for name, path in scans.items())
    sites = Field(configs, folder / "cache", folder / "sites").open()
    grid = InlineGrid(make_app(lambda c: sites[int(c.node_config["partition-id"])]), len(sites))
    members = join(grid, study)
    roster = [members[name] for name in scans]
    run = Run(grid, study, folder / "run", roster, roster)
    state = run.start()
    return state, run._checkpoints.weights(state.round)


@pytest.mark.full
@pytest.mark.data
def test_a_study_through_containers_ends_as_its_simulation(
    site_image: Image, server_image: Image, tmp_path: Path, fedscan_data: Path
) -> None:
    office = tmp_path / "office"
    home = office / "coordinator"
    home.mkdir(parents=True)
    (home / "passphrase").write_text("correct horse battery\n")
    (home / "passphrase").chmod(0o600)
    (home / "study.yaml").write_text(json.dumps(STUDY))
    give_to_containers(home)
    coordinator = Machine(office, "office", server_image, "compose.server.yaml")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    coordinator.setup("server", "init", "--home", ".", "--host", "127.0.0.1", "--port", port)
    hospitals = [hospital_of(tmp_path / name, name, site_image, fedscan_data) for name in SITES]
    try:
        for hospital in hospitals:
            enrol(coordinator, hospital)
        coordinator.setup("study", "sign", "study.yaml", "--run", "run-1")
        coordinator.up("server")
        for hospital in hospitals:
            hospital.up("trainer", "link")
        begun = coordinator.running["server"].execute("fedscan", "run", "start", "study.yaml")
        assert begun.returncode == 0, begun.stderr
        events = home / "runs" / "run-1" / "events.jsonl"
        wait_until(lambda: any(e["event"] == "finished" for e in read_events(events)), 600)
    finally:
        codes = [machine.down() for machine in (*hospitals, coordinator)]
    assert {code for found in codes for code in found.values()} == {0}
    study = load_study(home / "study.yaml")
    checkpoints = Checkpoints(home / "runs" / "run-1" / "checkpoints", study.digest(), Schema.of(study))
    state = checkpoints.state()
    assert state is not None
    simulated, expected = inline(study, tmp_path / "inline", {n: tmp_path / n / "scans" for n in SITES})
    assert same(checkpoints.weights(state.round), expected)
    assert (state.best_round, state.best_metric) == (simulated.best_round, simulated.best_metric)
