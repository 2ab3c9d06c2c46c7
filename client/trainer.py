"""The process with the scans and no network: takes tasks from the link, works, and hands back signed replies."""

import logging
import signal
from pathlib import Path

from client.device import pick_device
from client.handover.control import serve
from client.handover.mailbox import Mailbox
from client.handover.operators import serve_operators
from client.identity import Identity
from client.site import site_of_home
from client.work.discretion import Discretion
from client.work.trainer import Trainer
from common.errors import FedscanError
from common.lock import alone
from common.log import Form, start_log

log = logging.getLogger("fedscan.trainer")


def run(home: Path, form: Form = "text") -> None:
    """Be the trainer of the site in `home`, until SIGTERM or SIGINT.

    Raises:
        IdentityError: The site has not joined a federation, or its keys are missing.
        StudyError: site.yaml is wrong.
        FedscanError: Another trainer works here already, or no socket can be made.
    """
    start_log(form)
    logging.captureWarnings(True)
    who, config = Identity(home).trainer_credentials(), site_of_home(home)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Discretion(home / "trainer"))
    mailbox = Mailbox(home)
    mailbox.make()
    twice = FedscanError(f"a trainer of {home} is running already; stop it with: fedscan site stop")
    with alone(home / "trainer" / "lock", twice):
        trainer = Trainer(home)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: trainer.stop())
        group = config.operators.group
        with serve(mailbox.socket, trainer, trainer.refused), serve_operators(home, group, trainer.operations()):
            log.info("trainer of %s ready on %s", who.site, pick_device(config.device))
            trainer.run()
    log.info("trainer of %s stopped", who.site)
