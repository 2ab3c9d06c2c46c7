"""What `fedscan site egress show --dry-run STUDY` says."""

from pathlib import Path

import click

from client.desk.books import in_words
from client.work.rehearsal import rehearse
from common.errors import PolicyError
from common.study import load_study


def show(home: Path, study: Path, as_json: bool) -> bool:
    """Run one round for the site's eyes only and print what would leave; whether the site could answer.

    Raises:
        StudyError: The study or site.yaml is wrong.
    """
    if not as_json:
        click.echo("for your eyes only: this is what would leave in the first round. Nothing leaves now.")
    well = True
    try:
        for line in rehearse(home, load_study(study)):
            well = well and line.error is None
            click.echo(line.canonical().decode() if as_json else "\n".join(in_words(line)))
    except PolicyError as error:
        click.echo(f"refused: {error.code}: {error}")
        return False
    return well
