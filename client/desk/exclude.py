"""The commands `fedscan data exclude` and `include`."""

import getpass
from collections.abc import Sequence
from pathlib import Path

import click

from client.data.catalogue import look
from client.data.left_out import marks_of
from client.data.memory import Memory
from client.data.volume import Source
from client.exclusions import exclude as leave_out
from client.exclusions import include as take_in
from client.site import home_of, places, site_of_file
from common.errors import DataError
from common.registry import did_you_mean


def exclude(case: str, reason: str, file: Path) -> None:
    """Leave `case` of the site in `file` out; raises DataError when the site has no such case."""
    site, home = site_of_file(file), home_of(file)
    marks: frozenset[str] = frozenset()
    try:
        found = look(site, 1, (), places(home).runs)
    except DataError as error:
        # The decision counts also while the scans are away, or cannot be told apart without a study.
        click.echo(f"not looked up whether there is such a case: {error}", err=True)
        known = [case]
    else:
        images: dict[str, Sequence[Source]] = {stack.id: (stack,) for stack in found.stacks}
        images |= {own.id: own.images for own in found.cases}
        known = list(images)
        marks = _marks(images.get(case, ()), places(home).runs)
    if case not in known and case not in site.excluded:
        raise DataError(f"there is no case {case} in {site.data}.{did_you_mean(case, known)}")
    if not reason.strip():
        raise DataError("say with --reason why the case is left out")
    leave_out(home, case, reason.strip(), getpass.getuser(), marks)
    click.echo(f"{case} is left out from now on. What a model has already learnt from it stays learnt.")


def include(case: str, file: Path) -> None:
    """Take `case` of the site in `file` in again; raises DataError when it is not excluded."""
    site_of_file(file)
    take_in(home_of(file), case)
    click.echo(f"{case} is used again.")


def _marks(images: Sequence[Source], runs: Path) -> frozenset[str]:
    memory = Memory(runs)
    try:
        return marks_of(images, memory.digest)
    except OSError as error:
        click.echo(f"left out by its name alone: {error.filename} cannot be read ({error.strerror})", err=True)
        return frozenset()
