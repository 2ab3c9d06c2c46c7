"""The link's errand to the trainer: hands over one task and waits for its end, however often the trainer goes away."""

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from typing import cast

from client.handover.control import Progress, TrainerBusyError, TrainerClient, TrainerGoneError
from client.handover.files import Ref
from client.network.problems import Backoff, Problem
from common.errors import FedscanError

_MOST = 5.0  # seconds between two tries; the trainer is near


class Hop:
    """One task at the trainer, on a thread of its own.

    Args:
        trainer: The trainer's service.
        ref: The task.
        wake: Called when there is an answer, and with every change of a problem.

    Attributes:
        ref: The task.
        answer: The last message, once there is one: done or refused.
        problem: Why the trainer does not work on it now.
        progress: How far it is.
    """

    def __init__(self, trainer: TrainerClient, ref: Ref, wake: Callable[[], None]) -> None:
        self.ref = ref
        self.answer: Progress | None = None
        self.problem: Problem | None = None
        self.progress: Progress | None = None
        self._trainer = trainer
        self._wake = wake
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="hop")
        self._thread.start()

    def leave(self) -> None:
        """Do not wait any longer; the trainer may go on with it."""
        self._over.set()

    def _run(self) -> None:
        backoff = Backoff(_MOST)
        while not self._over.is_set():
            problem = self._wait_for_answer(backoff)
            if self.answer is not None or self._over.is_set():
                return
            if problem is not None:
                self.problem = problem
                self._wake()
            self._over.wait(backoff.pause())

    def _wait_for_answer(self, backoff: Backoff) -> Problem | None:
        try:
            # Closed at once: a stream that nobody reads would hold a place at the trainer.
            with closing(cast("Generator[Progress, None, None]", self._trainer.work(self.ref))) as messages:
                for message in messages:
                    if self._over.is_set():
                        return None
                    backoff.calm()
                    self.problem, self.progress = None, message
                    if message.state != "working":
                        self.answer = message
                        self._wake()
                        return None
        except TrainerBusyError:
            return Problem("trainer-busy", "the trainer still works on another task", "It gets this one after that")
        except TrainerGoneError as error:
            return Problem("trainer-away", str(error), "The task waits for it")
        except FedscanError as error:
            return Problem("trainer", str(error), "See the trainer's log")
        return Problem("trainer-away", "the trainer ended its answer early", "The task waits for it")
