"""A coordinator and enrolled sites in temporary folders, made by the steps of `fedscan server` and `fedscan site`."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from client.desk.joining import install, read_answer
from client.identity import make_keys
from common.enrolment import read_request
from common.manifests import sign_study
from common.study import Study
from server.enrolment.enrolled import Enrolment
from server.enrolment.identity import Coordinator, create
from simulations.benchmarks.legs import noop_net

RUN = "benchmark"


@dataclass(frozen=True)
class Homes:
    """Where everyone lives.

    Attributes:
        coordinator: The coordinator's folder.
        sites: The sites' folders.
        signed: The signed study and its order.
    """

    coordinator: Path
    sites: list[Path]
    signed: Path


def make(folder: Path, port: int, study: Study, sites: int) -> Homes:
    """Keys, certificates, enrolment, and the signed study; the coordinator will be at 127.0.0.1:`port`."""
    coordinator = create(folder / "c", ["127.0.0.1"], port, b"")
    keys = coordinator.unlock(b"")
    now = datetime.now(UTC)
    signed = sign_study(
        keys.signing, coordinator.id, study, RUN, coordinator.card.round_key, now, now + timedelta(days=1)
    )
    path = folder / "study.signed.json"
    path.write_bytes(signed.canonical())
    homes = [folder / f"s{i}" for i in range(sites)]
    for i, home in enumerate(homes):
        _enrol(coordinator, Enrolment(coordinator.enrolment_folder, coordinator.card), home, f"site-{i}")
    return Homes(coordinator.home, homes, path)


def study(parameters: int, tensors: int, rounds: int) -> Study:
    """A study over the net that computes nothing; one step a round, no validation, no test."""
    noop_net.register()
    return Study.model_validate(
        {
            "name": RUN,
            "data": {"labels": ["organ"], "dimensions": 2},
            "plan": {"patch": [16, 16]},
            "net": {"name": noop_net.NAME, "parameters": parameters, "tensors": tensors},
            "training": {"steps": 1},
            "rounds": {"number": rounds},
            "evaluation": {"validation": 0, "test": 0},
        }
    )


def _enrol(coordinator: Coordinator, enrolment: Enrolment, home: Path, name: str) -> None:
    home.mkdir()
    (home / "scans").mkdir()
    # What is timed is the way, not a study.
    policy = {"steps": 1, "batch": 1, "cases": 1, "small": 1, "digits": None}
    settings = {"name": name, "data": "scans", "approval": {"rule": "signer"}, "device": "cpu", "policy": policy}
    (home / "site.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    applicant = read_request(make_keys(home, name))
    join = enrolment.add(applicant, name, coordinator.unlock(b"").authority)
    install(home, read_answer(home, join.canonical()))
