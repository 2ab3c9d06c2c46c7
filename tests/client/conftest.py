"""Prepared cases and studies, tiny, made on the spot; and a hospital that has joined, with its coordinator's keys."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from client.data.cache import store
from client.data.preprocess import Grid, Meta, grid
from client.data.volume import CachedCase
from client.handover.control import Progress, TrainerClient, serve
from client.handover.files import FileName, Ref
from client.handover.mailbox import Mailbox
from client.identity import Federation
from client.work.trainer import Trainer
from common.keys import PRIVATE, pem, private_folder, write_new
from common.manifests import Assignment, Counted, SignedStudy, arrays_sha256, sign_study
from common.nets import build_net
from common.signing import key_id, key_text
from common.study import Study
from common.wire import Flat, Schema
from server.manifests import Manifests
from simulations.phantom import make_phantom

MakeCase = Callable[..., CachedCase]
MakeStudy = Callable[..., Study]


def _grid(shape: tuple[int, ...], step: float, like: tuple[int, ...]) -> Grid:
    """A grid of `step` mm voxels with the same field of view as `like` voxels of 1 mm."""
    affine = np.diag([step, step, step, 1.0])
    affine[: len(shape), 3] = [step / 2 * (1 - n) + (m - 1) / 2 for n, m in zip(shape, like, strict=True)]
    return grid(shape, affine)


@pytest.fixture
def make_case(tmp_path: Path) -> MakeCase:
    """Writes the folder of a prepared case: image (C, *S), label (*S), truth on its own, finer or equal grid."""

    def make(
        name: str,
        image: NDArray[Any],
        label: NDArray[Any],
        truth: NDArray[Any] | None = None,
        spacing: tuple[float, ...] | None = None,
    ) -> CachedCase:
        folder = tmp_path / "cache" / name
        own = label if truth is None else truth
        meta: Meta = {
            "image": name,
            "content": name,
            "plan": _grid(label.shape, 1.0, label.shape),
            "own": _grid(own.shape, label.shape[0] / own.shape[0], label.shape),
            "voxels": [int((own == 1).sum())],
            "plan_voxels": [int((label == 1).sum())],
            "unlabelled": [],
            "notes": [],
            "gate": {},
        }
        if spacing is not None:
            meta["own"]["spacing"] = list(spacing)
        arrays = {
            "image": image.astype(np.float32),
            "label": label.astype(np.uint8),
            "truth": own.astype(np.uint8),
            "foreground": np.column_stack([np.argwhere(label), label[label > 0]]).astype(np.int32),
        }
        store(folder, arrays, meta)
        return CachedCase(name, f"patient-{name}", folder, name, name)

    return make


@pytest.fixture
def make_study() -> MakeStudy:
    """A study with the given patch; `labels`, `channels`, `training` and `evaluation` as wanted."""

    def make(patch: tuple[int, ...], **parts: Any) -> Study:
        labels, channels = parts.pop("labels", ["organ"]), parts.pop("channels", ["image"])
        training = {"steps": 1, "augment": "none", **parts.pop("training", {})}
        data = {"labels": labels, "channels": channels, "dimensions": len(patch)}
        plan = {"patch": list(patch), **parts.pop("plan", {})}
        return Study.model_validate({"name": "test", "data": data, "plan": plan, "training": training, **parts})

    return make


SIGNER, ROUND, REPLY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in (1, 2, 3, 4))
COORDINATOR = key_id(SIGNER.public_key())
NOW = datetime.now(UTC)
# The tests' sites have a handful of cases and learn for a few steps.
OPEN = "{steps: 1, batch: 1, cases: 1, small: 1, digits: null}"


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One hospital's phantoms, NIfTI."""
    return make_phantom(tmp_path_factory.mktemp("scans"), sites=1, cases=6)[0]


class Hospital:
    """A site that has joined, in `home`, and the coordinator that sends it tasks.

    Its keys are the ones of a real join; only the certificates, which a trainer never reads, are missing.
    """

    signer, round_key, reply_key, stranger = SIGNER, ROUND, REPLY, STRANGER
    coordinator = COORDINATOR

    def __init__(self, home: Path, chains: Path, scans: Path) -> None:
        self.home, self.chains, self.scans = home, chains, scans
        self.mailbox = Mailbox(home)
        self.client = TrainerClient(self.mailbox.socket)
        private_folder(home / "trainer")
        write_new(home / "trainer" / "reply-1.pem", pem(REPLY), PRIVATE)
        federation = Federation(
            site="oslo", host="localhost", port=443, signing_key=key_text(SIGNER.public_key()), certificate="0" * 64,
            authority="0" * 64, generation=1,
        )  # fmt: skip
        (home / "federation.json").write_bytes(federation.canonical())
        self.configure()
        self.mailbox.make()

    def configure(self, **changes: Any) -> None:
        labels = {"liver": 1, "kidneys": 2}
        config = {
            "name": "proposed", "data": str(self.scans), "labels": labels, "device": "cpu",
            "approval": "{rule: signer}", "policy": OPEN,
        }  # fmt: skip
        lines = (f"{k}: {v}\n" for k, v in {**config, **changes}.items())
        (self.home / "site.yaml").write_text("".join(lines))

    def study(self, name: str = "first", **changes: Any) -> Study:
        parts: dict[str, Any] = {
            "name": name,
            "data": {"labels": ["liver", "kidneys"]},
            "plan": {"spacing": [6, 6, 6], "patch": [16, 16, 16]},
            "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
            "training": {"steps": 4, "batch": 2, "rate": 0.01},
            "rounds": {"number": 5},
            "strategy": {"name": "fedprox", "mu": 0.01},
        }
        return Study.model_validate({**parts, **changes})

    def signed(self, study: Study, run: str = "run-1", issued: datetime = NOW, days: int = 30) -> SignedStudy:
        return sign_study(
            SIGNER, COORDINATOR, study, run, key_text(ROUND.public_key()), issued, issued + timedelta(days=days)
        )

    def weights(self, study: Study, seed: int = 1) -> Flat:
        torch.manual_seed(seed)
        return Schema.of(study).pack(build_net(study).state_dict())

    def assignment(
        self, study: Study, number: int = 1, kind: Any = "train", part: Any = "train", flat: Flat | None = None,
        acknowledged: int = 0, chain: str = "chain", signed: SignedStudy | None = None, **more: Any,
    ) -> Assignment:  # fmt: skip
        signed = signed or self.signed(study)
        chain_of_run = Manifests(self.chains / chain, signed, COORDINATOR, key_text(SIGNER.public_key()), ROUND)
        base = None if flat is None else arrays_sha256(flat)
        if kind == "train":
            more = {"terms": {"proximal": 0.01}, **more}
        roster = {"oslo": Counted(round=acknowledged), "bergen": Counted()}
        return chain_of_run.issue(number, kind, part, base, more.pop("roster", roster), **more)

    def put(self, study: Study, number: int = 1, kind: Any = "train", part: Any = "train", **more: Any) -> Ref:
        """A task as the link writes it, with the weights that every test starts from."""
        flat = None if kind == "join" else more.pop("flat", None) or self.weights(study)
        assignment = self.assignment(study, number, kind, part, flat, **more)
        return self.mailbox.put_task(assignment.canonical(), flat or {})

    def ask(self, study: Study, number: int = 1, kind: Any = "train", part: Any = "train", **more: Any) -> Progress:
        """The last word of the trainer to a task."""
        return list(self.client.work(self.put(study, number, kind, part, **more)))[-1]

    @contextmanager
    def trainer(self) -> Iterator[Trainer]:
        """The real trainer on its real socket, in this process."""
        trainer = Trainer(self.home)
        worker = threading.Thread(target=trainer.run, name="trainer")
        with serve(self.mailbox.socket, trainer, trainer.refused):
            worker.start()
            try:
                yield trainer
            finally:
                trainer.stop()
                worker.join(60)
        assert not worker.is_alive()


@pytest.fixture
def hospital(tmp_path: Path, scans: Path) -> Hospital:
    return Hospital(tmp_path / "h", tmp_path / "chains", scans)


def put_reply(mailbox: Mailbox, header: bytes, metrics: Any, arrays: Any, name: FileName = "reply.safetensors") -> Ref:
    """A reply that the link may have at once."""
    ref = mailbox.hold_reply(header, metrics, arrays, name)
    mailbox.release(name)
    return ref
