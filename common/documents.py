"""YAML files that people write: read safely, validated, and wrong places named by file, line and key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from common.errors import StudyError
from common.registry import did_you_mean

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Document:
    """A YAML mapping with the line of each of its values.

    Attributes:
        path: Where it was read; its folder is what relative paths inside it start from.
        data: The mapping, of plain Python values.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._lines: dict[Location, int] = {}
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise StudyError(f"{path}:{line}: not valid YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise StudyError(f"{path}: not valid YAML: {error}") from None
        if not isinstance(node, yaml.MappingNode):
            raise StudyError(f"{path}:1: the file must be a mapping of keys to values (key: value)")
        self._walk(node, ())
        self.data: dict[str, Any] = yaml.safe_load(text)

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read `path`; raises StudyError when it is missing, unreadable or not a YAML mapping."""
        try:
            return cls(path, path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StudyError(f"{path}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(f"{path}: cannot be read as text ({type(error).__name__})") from None

    def line(self, location: Location) -> int:
        """The line (from 1) of the value at `location`, or of the nearest value that encloses it."""
        while location and location not in self._lines:
            location = location[:-1]
        return self._lines.get(location, 1)

    def validate(self, model: type[Model], data: Mapping[str, Any], root: Location = ()) -> Model:
        """`data`, which stands at `root` of this file, as `model`; raises StudyError naming every wrong place."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            problems = [self._describe(model, e, root) for e in error.errors(include_url=False)]
            raise StudyError("\n".join(problems)) from None

    def _describe(self, model: type[BaseModel], error: Any, root: Location) -> str:
        loc = (*root, *self._present(error["loc"], root))
        key = ".".join(map(str, loc)) or "(whole file)"
        message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if error["type"] == "extra_forbidden":
            known = list(error.get("ctx", {}).get("known", _keys_beside(model, error["loc"])))
            message = f"unknown key.{did_you_mean(str(error['loc'][-1]), known)}"
            message += f" Known here: {', '.join(known)}" if known else ""
        elif error["type"] == "missing":
            message = "this key is required"
        return f"{self.path}:{self.line(loc)}: {key}: {message}"

    def _present(self, loc: Location, root: Location) -> Location:
        """`loc` without the tags that pydantic adds for unions: only parts that the file has, and a missing last key."""
        kept: list[str | int] = []
        for i, part in enumerate(loc):
            if (*root, *kept, part) in self._lines or i == len(loc) - 1:
                kept.append(part)
        return tuple(kept)

    def _walk(self, node: yaml.Node, location: Location) -> None:
        self._lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = yaml.safe_load(key.value) if isinstance(key, yaml.ScalarNode) and key.tag.endswith(
                    ("int", "bool")) else key.value
                place = (*location, name if isinstance(name, str | int) else str(name))
                if place in self._lines:
                    raise StudyError(f"{self.path}:{key.start_mark.line + 1}: {'.'.join(map(str, place))}: "
                                     f"this key stands twice (first on line {self._lines[place]})")  # fmt: skip
                self._lines[place] = key.start_mark.line + 1
                self._walk(value, place)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._walk(value, (*location, index))


def _keys_beside(model: type[BaseModel], loc: Location) -> list[str]:
    """The keys that `model` knows in the mapping in which the unknown key at `loc` stands."""
    here: Any = model
    for part in loc[:-1]:
        if not (isinstance(here, type) and issubclass(here, BaseModel)):
            return []
        field = here.model_fields.get(str(part))
        here = field.annotation if field else None
    if isinstance(here, type) and issubclass(here, BaseModel):
        return [f.alias or name for name, f in here.model_fields.items()]
    return []
