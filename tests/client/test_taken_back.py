"""A reply that a pause holds back belongs to a study that may end meanwhile: then it never leaves."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client.handover.control import TrainerBusyError
from client.work.approvals import decision
from client.work.replies import write_reply
from common.study import Study
from tests.client.test_approvals import ANNA, Hospital, code, decide, deciding


def trained(hospital: Hospital, study: Study) -> None:
    """One round of the study, approved: its update waits for the link."""
    hospital.ask(study, 0, "join")
    decide(hospital, study, "approve")
    assert hospital.ask(study, 1).state == "done"


def updates(hospital: Hospital) -> list[str]:
    """The files with an update, those that the link may open and those that are held."""
    return sorted(path.name for path in hospital.mailbox.folder.glob("*reply.safetensors"))


def test_withdrawn_while_the_site_is_paused(hospital: Hospital) -> None:
    study = hospital.study()
    with deciding(hospital) as trainer:
        trained(hospital, study)
        trainer.brakes.pause("ada")
        assert updates(hospital) == [".held-reply.safetensors"]
        decide(hospital, study, "withdraw")
        assert updates(hospital) == []
        trainer.brakes.unpause("ada")
        assert updates(hospital) == []
        assert code(hospital.ask(study, 1)) == "E_APPROVAL_WITHDRAWN"


@pytest.mark.parametrize("crashed", [False, True])
def test_an_approval_that_ends_while_the_site_is_paused(hospital: Hospital, crashed: bool) -> None:
    study = hospital.study()
    with deciding(hospital) as trainer:
        trained(hospital, study)
        decide(hospital, study, "approve", until=datetime.now(UTC) + timedelta(seconds=1))
        trainer.brakes.pause("ada")
        time.sleep(1.1)
        assert updates(hospital) == [".held-reply.safetensors"]
        if not crashed:
            trainer.brakes.unpause("ada")
    if crashed:
        # What a process that dies in the middle of `unpause` leaves.
        (hospital.home / "trainer" / "paused.json").unlink()
        with deciding(hospital):
            pass
    assert updates(hospital) == []


def test_withdrawn_and_paused_at_the_moment_of_the_reply(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    study = hospital.study()
    with deciding(hospital) as trainer:
        hospital.ask(study, 0, "join")
        decide(hospital, study, "approve")

        def written(*args: Any) -> Any:
            ref = write_reply(*args)
            trainer.brakes.pause("ada")
            trainer.approvals.decide(trainer.approvals.find("first"), decision("withdraw", ANNA), "")
            return ref

        monkeypatch.setattr("client.work.trainer.write_reply", written)
        with pytest.raises(TrainerBusyError):
            hospital.ask(study, 1)
        monkeypatch.undo()
        assert updates(hospital) == []
        trainer.brakes.unpause("ada")
        # It works on.
        assert code(hospital.ask(study, 1)) == "E_APPROVAL_WITHDRAWN"
        decide(hospital, study, "approve")
        assert hospital.ask(study, 1).state == "done"
