"""The command `fedscan`: finds the folders' sub-commands and turns every expected error into a message.

A sub-command is an entry point of the group `fedscan.commands` and is imported when it is used. The one-line help in
the overview is the first line of its module's docstring, read without running the module, so that `fedscan --help`
never waits for PyTorch.
"""

import common.quiet  # noqa: F401

import ast
import difflib
import errno
import importlib.util
import sys
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path

import click

from common.errors import FedscanError, StorageError, StudyError

GROUP = "fedscan.commands"

DONE, FINDINGS, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: on the device, in the quota, under the process's limit

NOT_INSTALLED = "fedscan is not installed in this Python: run `pip install -e .` in the project's folder"


class Commands(click.Group):
    """The sub-commands that the installed folders offer, loaded on use."""

    def entry_points(self) -> dict[str, EntryPoint]:
        """Entry points by the name under which they are typed."""
        return offered(GROUP)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted(self.entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command behind `cmd_name`, imported now; None when there is none."""
        entry = self.entry_points().get(cmd_name)
        return None if entry is None else load_command(entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with our own words for an unknown command."""
        known = self.list_commands(ctx)
        if not known:
            raise click.UsageError(NOT_INSTALLED, ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Commands: {', '.join(known)}."
            raise click.UsageError(f"there is no command '{args[0]}'. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview without importing any command."""
        rows = [(name, _summary(entry)) for name, entry in sorted(self.entry_points().items())]
        with formatter.section("Commands"):
            if rows:
                formatter.write_dl(rows)
            else:
                formatter.write_text(NOT_INSTALLED)


def offered(group: str) -> dict[str, EntryPoint]:
    """What the installed folders offer in a group of entry points, by the name under which it is typed."""
    return {e.name: e for e in entry_points(group=group)}


def load_command(entry: EntryPoint) -> click.Command:
    """Import the command behind an entry point; raises ClickException when a module is not installed."""
    try:
        found = entry.load()
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the command '{entry.name}' needs the module '{error.name}', which is not installed; "
            "run `pip install -e .` again in the project's folder"
        ) from error
    if isinstance(found, click.Command):
        return found
    from typer.main import get_command

    return get_command(found)


def _summary(entry: EntryPoint) -> str:
    """The first line of the docstring of the entry point's module; empty when its file cannot be found."""
    try:
        spec = importlib.util.find_spec(entry.module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return "(not installed)"
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    try:
        click.echo(f"fedscan {version('fedscan')}")
    except PackageNotFoundError:
        raise click.UsageError(NOT_INSTALLED, ctx) from None
    ctx.exit()


command = Commands(
    "fedscan",
    help="Train medical-image segmentation models across hospitals while every scan stays in its hospital.",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and leave.",
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)


def show(error: FedscanError) -> None:
    """Print `error` on stderr: one line after the word, several as a list under their number."""
    lines = str(error).splitlines() or [type(error).__name__]
    word = click.style("error:", fg="red", bold=True)
    if len(lines) == 1:
        click.echo(f"{word} {lines[0]}", err=True)
        return
    click.echo(f"{word} {len(lines)} things are wrong", err=True)
    for line in lines:
        click.echo(f"  {line}", err=True)


def run(args: list[str] | None = None) -> int:
    """Run the command line `args` (default: the process's) and return its exit code."""
    try:
        result = command.main(args, prog_name="fedscan", standalone_mode=False)
    except FedscanError as error:
        show(error)
        return WRONG_USE if isinstance(error, StudyError) else FINDINGS
    except OSError as error:
        remedy = "Make room and go on" if error.errno in FULL else "Check the path and its permissions"
        show(StorageError(f"{error.filename or 'a file'} could not be used: {error.strerror}. {remedy}"))
        return FINDINGS
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return INTERRUPTED
    return result if isinstance(result, int) else DONE


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())
