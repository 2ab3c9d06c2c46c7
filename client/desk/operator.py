"""The commands' end of the operators' socket."""

import getpass
import socket
from pathlib import Path

from client.handover.operation import (
    MAX_ANSWER,
    Answer,
    Asked,
    Operation,
    Question,
    TalkError,
    Verdict,
    receive,
    send,
    socket_of,
)
from common.errors import FedscanError
from common.records import RecordError, read_record
from common.rpc import address

_TIMEOUT = 60.0  # seconds


class RefusedError(FedscanError):
    """The trainer says no, and why.

    Attributes:
        reason: Its code.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def ask(home: Path, operation: Operation[Question, Answer], question: Question, timeout: float = _TIMEOUT) -> Answer:
    """Ask the trainer of the site in `home`.

    Args:
        home: The site's folder.
        operation: What.
        question: With what.
        timeout: Seconds.

    Returns:
        Its answer.

    Raises:
        RefusedError: It says no: this user may not ask, or what was asked cannot be done.
        FedscanError: No trainer answers there.
    """
    path = socket_of(home)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to:
        to.settimeout(timeout)
        try:
            to.connect(address(path).removeprefix("unix:"))
            send(to, Asked(operation=operation.name))
            send(to, question)
            verdict = read_record(Verdict, receive(to, MAX_ANSWER), MAX_ANSWER)
            if verdict.state == "refused":
                raise RefusedError(verdict.code, verdict.message)
            return read_record(operation.answer, receive(to, MAX_ANSWER), MAX_ANSWER)
        except PermissionError:
            raise FedscanError(
                f"{path}: {getpass.getuser()} may not ask the trainer; its operators are the members of the group that "
                "site.yaml names (operators: group), without one the trainer's own user (sudo -u USER fedscan site ...)"
            ) from None
        except (OSError, RecordError, TalkError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise FedscanError(
                f"no trainer answers on {path} ({why}); start it with: fedscan site start (as services: systemctl "
                "start fedscan-trainer)"
            ) from None
