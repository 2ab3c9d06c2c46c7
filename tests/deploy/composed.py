"""Compose files as Docker Compose reads them: variables put in, merged."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
# Of the interpolation rules of the Compose specification those that the files use: ${NAME:-default}, ${NAME:?error}.
_VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


def text_of(name: str, variables: dict[str, str] | None = None) -> str:
    """A compose file with its variables put in; KeyError for one that must be given and is not."""
    given = variables or {}

    def value(match: re.Match[str]) -> str:
        found = given.get(match[1])
        if not found and match[2] == "?":
            raise KeyError(match[1])
        return found or match[3]

    # A comment shows commands to the reader and is no part of the file.
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    return _VARIABLE.sub(value, "\n".join(line for line in lines if not line.lstrip().startswith("#")))


def services_of(name: str, variables: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The services of a compose file."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(text_of(name, variables))["services"]
    return services


def mounts_of(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """What a service sees of the host: target -> (source, may it write)."""
    binds = [v for v in service.get("volumes", []) if v["type"] == "bind"]
    return {v["target"]: (os.path.normpath(v["source"]), not v.get("read_only", False)) for v in binds}
