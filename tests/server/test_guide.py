"""Every command in the coordinator's guide exists, with the arguments and options that it is shown with."""

import re
import shlex
from pathlib import Path

import click
import pytest

from common.cli import command

GUIDE = (Path(__file__).parents[2] / "docs" / "coordinator.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^    (fedscan .+)$", GUIDE, re.MULTILINE)
MENTIONED = [text for text in re.findall(r"`(fedscan [^`]+)`", GUIDE) if "/" not in text]
COMMANDS = sorted({shlex.split(text, comments=True)[1:].__repr__(): text for text in (*SHOWN, *MENTIONED)}.values())


def test_the_guide_was_found() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_of_the_guide_can_be_parsed(text: str) -> None:
    args = shlex.split(text, comments=True)[1:]
    here: click.Command = command
    context = click.Context(here)
    while isinstance(here, click.Group):
        name, found, args = here.resolve_command(context, args)
        assert found is not None, text
        context, here = click.Context(found, parent=context, info_name=name), found
    # A mention may leave arguments out; a shown command may not.
    whole = text in SHOWN
    here.make_context(here.name, args, resilient_parsing=not whole)
    known = {option for parameter in here.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {a for a in args if a.startswith("--")} <= known
