"""Reads what Google-style docstrings say of each option, so that a description is written once."""

import inspect
import re
from typing import Any

_SECTION = re.compile(r"^(Args|Attributes):$")
_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")


def summary(target: Any) -> str:
    """The first line of the docstring."""
    return (inspect.getdoc(target) or "").partition("\n")[0]


def descriptions(target: Any) -> dict[str, str]:
    """What the docstring's Args or Attributes say, by name, each on one line."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in (inspect.getdoc(target) or "").splitlines():
        if line and not line.startswith(" "):
            inside, name = bool(_SECTION.match(line)), ""
        elif inside and (entry := _ENTRY.match(line)):
            name = entry[1]
            found[name] = entry[2]
        elif inside and name and line.strip():
            found[name] += " " + line.strip()
    return found
