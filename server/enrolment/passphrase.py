"""Where the passphrase of the offline keys comes from: a prompt, or a file for automation; never the command line.

Arguments and environments can be read by others of the same machine, so only the *name* of a file may stand there
(option `--passphrase-file` or the variable FEDSCAN_PASSPHRASE_FILE).
"""

from pathlib import Path

import click

from common.errors import IdentityError
from common.keys import FORBIDDEN, read_small

# With fewer characters a stolen key file could be opened by trying.
SHORTEST = 12
MAX_BYTES = 1024


def new_passphrase(file: Path | None, allow_weak: bool) -> bytes:
    """The passphrase for new keys, asked for twice when there is no file.

    Raises:
        IdentityError: It is shorter than SHORTEST and `allow_weak` is not set, or the file cannot be read.
    """
    chosen = (
        _from_file(file)
        if file
        else click.prompt(
            f"Passphrase for the offline keys (at least {SHORTEST} characters)",
            hide_input=True, confirmation_prompt="The same again", default="", show_default=False,
        ).encode()
    )  # fmt: skip
    if len(chosen.decode()) < SHORTEST and not allow_weak:
        raise IdentityError(
            f"the passphrase has fewer than {SHORTEST} characters; whoever gets the key files could find it by trying. "
            "Choose a longer one, or --allow-weak-passphrase for a trial"
        )
    return chosen


def known_passphrase(file: Path | None) -> bytes:
    """The passphrase of keys that exist, asked for once when there is no file; raises IdentityError."""
    if file:
        return _from_file(file)
    asked = click.prompt("Passphrase of the offline keys", hide_input=True, default="", show_default=False)
    return str(asked).encode()


def _from_file(file: Path) -> bytes:
    """The first line of `file`, which others must not be able to read."""
    raw = read_small(file, MAX_BYTES)
    if file.stat().st_mode & FORBIDDEN:
        raise IdentityError(f"{file} holds a passphrase and can be read by others; run: chmod 600 {file}")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raise IdentityError(f"{file} is not text in UTF-8") from None
    return raw.partition(b"\n")[0].rstrip(b"\r")
