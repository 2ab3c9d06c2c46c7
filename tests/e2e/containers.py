"""The images really built from the Dockerfiles (buildah), and run as the compose files say (runc), without Docker.

`runtime_config` turns a service of a compose file into the configuration of an OCI runtime. It knows every key that the
files use: one that it does not know is an error, so that no restriction is lost on the way.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOOLS = ("buildah", "runc", "debootstrap")
BASE = "localhost/fedscan-base:bookworm"
# Everything that takes minutes and is the same for every test run.
KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedscan-images"
# Of a service, what says nothing of what its process may do.
BESIDE = {"image", "command", "restart", "stop_grace_period", "logging", "healthcheck", "profiles", "ipc", "init"}
ALWAYS = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
     "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
]  # fmt: skip


def missing() -> list[str]:
    """Tools that are not installed (Debian: apt-get install buildah runc debootstrap)."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def run(*command: str, **options: Any) -> str:
    """Run a command to its end; what it printed."""
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def base() -> str:
    """A base image of Debian's own Python 3.11, made here because no registry is reached."""
    if run("buildah", "images", "--quiet", "--filter", f"reference={BASE}"):
        return BASE
    with tempfile.TemporaryDirectory(dir=_kept()) as folder:
        root = Path(folder) / "root"
        packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
        run("debootstrap", "--variant=minbase", packages, "bookworm", str(root))
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for cache in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / cache)
        run("tar", "-C", str(root), "-cf", f"{folder}/base.tar", ".")
        container = run("buildah", "from", "scratch")
        run("buildah", "add", "-q", container, f"{folder}/base.tar", "/")
        run("buildah", "commit", "-q", container, BASE)
        run("buildah", "rm", container)
    return BASE


def wheels() -> Path:
    """Wheels of all that the project needs, in the versions of deploy/constraints.txt."""
    constraints = str(ROOT / "deploy" / "constraints.txt")
    asked = [Path(constraints).read_bytes(), (ROOT / "pyproject.toml").read_bytes()]
    folder = _kept() / f"wheels-{hashlib.sha256(b''.join(asked)).hexdigest()[:16]}"
    if not any(folder.glob("*.whl")):
        run(sys.executable, "-m", "pip", "wheel", "-q", "-w", str(folder), "-c", constraints, str(ROOT), "hatchling")
        for own in folder.glob("fedscan-*.whl"):
            own.unlink()
    return folder


def build(name: str) -> str:
    """The image of deploy/Dockerfile.NAME, built anew (with FEDSCAN_KEEP_IMAGES=1 only if there is none); its tag."""
    tag = f"localhost/fedscan-{name}:test"
    if os.environ.get("FEDSCAN_KEEP_IMAGES") == "1" and run(
        "buildah", "images", "--quiet", "--filter", f"reference={tag}"
    ):
        return tag
    with tempfile.TemporaryDirectory(dir=_kept()) as folder:
        context = Path(folder) / "context"
        tracked = run("git", "-C", str(ROOT), "ls-files").splitlines()
        for file in (f for f in tracked if (ROOT / f).is_file()):
            (context / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, context / file)
        for wheel in wheels().glob("*.whl"):
            shutil.copy(wheel, context / "deploy" / "wheels")
        dockerfile = str(context / "deploy" / f"Dockerfile.{name}")
        argument = f"BASE={base()}"
        run("buildah", "bud", "--pull-never", "--build-arg", argument, "-t", tag, "-f", dockerfile, str(context))
    return tag


class Image:
    """A built image, its files mounted; many containers may run on them, because none may write."""

    def __init__(self, tag: str) -> None:
        self._container = run("buildah", "from", "--pull-never", tag)
        self.root = Path(run("buildah", "mount", self._container))
        about = json.loads(run("buildah", "inspect", "--type", "image", tag))
        self.config: dict[str, Any] = about["OCIv1"]["config"]
        # What an image holds when it is unpacked on a disk.
        self.nbytes = int(run("du", "-sx", "--block-size=1", str(self.root)).split()[0])

    def close(self) -> None:
        run("buildah", "rm", self._container)


def runtime_config(
    service: Mapping[str, Any],
    image: Mapping[str, Any],
    root: Path,
    here: Path,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """What runc is to run for a service of a compose file.

    Args:
        service: The service.
        image: The image's own configuration (Env, Entrypoint, WorkingDir).
        root: The image's files.
        here: The folder of the compose file, from which relative paths start.
        command: Instead of entrypoint and command, with the same restrictions.
    """
    left = dict(service)
    user, group = (int(number) for number in left.pop("user").split(":"))
    assert left.pop("cap_drop") == ["ALL"]
    assert left.pop("security_opt") == ["no-new-privileges:true"]
    mounts = [*ALWAYS, *(_tmpfs(text) for text in left.pop("tmpfs", []))]
    mounts += [_volume(volume, here) for volume in left.pop("volumes", [])]
    readonly = left.pop("read_only")
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if left.pop("network_mode", None) == "none":
        namespaces.append({"type": "network"})
    else:
        # Without a bridge to the outside: the host's own network, in which the tests' coordinator is.
        left.pop("networks", None)
        left.pop("ports", None)
    pids = left.pop("pids_limit")
    assert set(left) <= BESIDE, f"keys that the runtime does not get: {set(left) - BESIDE}"
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": readonly},
        "hostname": "fedscan",
        "process": {
            "terminal": False,
            "user": {"uid": user, "gid": group},
            "args": list(command) or [*image["Entrypoint"], *service["command"]],
            "env": [*image["Env"], "OMP_NUM_THREADS=1"],
            "cwd": image["WorkingDir"],
            "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "rlimits": [],
        },
        "mounts": mounts,
        "linux": {"namespaces": namespaces, "resources": {"pids": {"limit": pids}}},
    }


def _tmpfs(text: str) -> dict[str, Any]:
    target, _, options = text.partition(":")
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options.split(",")}


def _volume(volume: Mapping[str, Any], here: Path) -> dict[str, Any]:
    if volume["type"] == "tmpfs":
        own = volume["tmpfs"]
        options = ["nosuid", "nodev", "noexec", f"size={own['size']}", f"mode={own['mode']:o}"]
        return {"destination": volume["target"], "type": "tmpfs", "source": "tmpfs", "options": options}
    assert volume["type"] == "bind"
    way = "ro" if volume.get("read_only") else "rw"
    source = os.path.normpath(here / volume["source"])
    options = ["rbind", "nosuid", "nodev", way]
    return {"destination": volume["target"], "type": "bind", "source": source, "options": options}


class Container:
    """One container under runc, its output in a file."""

    def __init__(self, name: str, config: Mapping[str, Any], folder: Path) -> None:
        self.name = name
        self._bundle = folder / name
        self._bundle.mkdir(parents=True, exist_ok=True)
        (self._bundle / "config.json").write_text(json.dumps(config))
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, seconds: float = 120) -> str:
        """Run it to its end; what it printed."""
        self.start()
        assert self.process is not None
        code = self.process.wait(seconds)
        assert code == 0, f"{self.name}: {code}\n{self.said()}"
        return self.said()

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            command = ["runc", "run", "--bundle", str(self._bundle), self.name]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run something else in it, as its health check is."""
        return subprocess.run(["runc", "exec", self.name, *command], capture_output=True, text=True, check=False)

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """End it; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            subprocess.run(["runc", "kill", self.name, how.name.removeprefix("SIG")], capture_output=True, check=False)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            subprocess.run(["runc", "delete", "--force", self.name], capture_output=True, check=False)
            return self.process.wait(seconds)

    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")


def give_to_containers(folder: Path) -> None:
    """What `sudo chown -R 10001:10001` does."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 10001, 10001)


def wait_for_health(container: Container, command: Sequence[str], seconds: float) -> None:
    """Ask the service's own health check until it is well."""
    end = time.monotonic() + seconds
    while container.execute(*command).returncode != 0:
        assert time.monotonic() < end, f"{container.name} is not well\n{container.said()[-3000:]}"
        time.sleep(1)


def health_check(service: Mapping[str, Any]) -> list[str]:
    """The command of a service's health check."""
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    return [*command]


def unique_name(tag: str) -> str:
    """A container's name: unique on this machine."""
    return f"fedscan-{re.sub('[^a-z0-9]', '', tag)}-{os.getpid()}"


def _kept() -> Path:
    KEPT.mkdir(parents=True, exist_ok=True)
    return KEPT
