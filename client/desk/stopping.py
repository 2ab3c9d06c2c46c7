"""What `fedscan site pause` and `unpause` do and say."""

import time
from pathlib import Path

import click

from client.desk.operator import ask
from client.desk.status import read_link
from client.handover.book_operations import PAUSE, UNPAUSE, Why

_HEED = 0.9  # seconds in which a link that is well lets go


def pause(home: Path, why: str) -> bool:
    """Pause the site in `home`; whether it is certain that nothing leaves.

    Raises:
        FedscanError: No trainer answers, or this user may not ask it.
    """
    paused = ask(home, PAUSE, Why(why=why))
    end = time.monotonic() + _HEED
    while True:
        link = read_link(home)
        heeds = link is None or link.paused or link.phase == "stopped"
        if heeds or time.monotonic() > end:
            break
        time.sleep(0.02)
    if not heeds:
        click.echo(
            "the trainer has stopped and hands out nothing more, but the link does not say that it has let go: what it "
            "was given before may still be leaving. To be certain, end it: fedscan site stop"
        )
        return False
    click.echo(f"paused by {paused.who} since {paused.since.astimezone():%Y-%m-%d %H:%M:%S}: nothing leaves")
    click.echo("  The work stops after its step and is kept. The coordinator sees that the site is there, and no more.")
    click.echo("  go on: fedscan site unpause")
    return True


def unpause(home: Path, why: str) -> None:
    """Let the site in `home` go on; raises as `pause`."""
    ask(home, UNPAUSE, Why(why=why))
    click.echo("the site goes on where it stood; what was finished meanwhile leaves now")
