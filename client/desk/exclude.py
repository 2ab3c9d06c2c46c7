"""The commands `fedscan data exclude` and `include`."""

import getpass
from pathlib import Path

import click

from client.data.catalogue import look
from client.exclusions import exclude as leave_out
from client.exclusions import include as take_in
from client.site import places, site_of_file
from common.errors import DataError
from common.registry import did_you_mean


def exclude(case: str, reason: str, file: Path) -> None:
    """Leave `case` of the site in `file` out; raises DataError when the site has no such case."""
    site = site_of_file(file)
    try:
        found = look(site, 1, (), places(file.resolve().parent).runs)
    except DataError as error:
        # The decision counts also while the scans are away, or cannot be told apart without a study.
        click.echo(f"not looked up whether there is such a case: {error}", err=True)
        known = [case]
    else:
        known = [*(own.id for own in found.cases), *(stack.id for stack in found.stacks)]
    if case not in known and case not in site.excluded:
        raise DataError(f"there is no case {case} in {site.data}.{did_you_mean(case, known)}")
    if not reason.strip():
        raise DataError("say with --reason why the case is left out")
    leave_out(file.parent, case, reason.strip(), getpass.getuser())
    click.echo(f"{case} is left out from now on. What a model has already learnt from it stays learnt.")


def include(case: str, file: Path) -> None:
    """Take `case` of the site in `file` in again; raises DataError when it is not excluded."""
    site_of_file(file)
    take_in(file.parent, case)
    click.echo(f"{case} is used again.")
