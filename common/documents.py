"""YAML files that people write: read safely, validated, and wrong places named by file, line and key.

What is read is YAML 1.2's core schema without aliases: `no` and `12:30` are text, `1e-3` is a number, and a small
file cannot grow into a large one.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from common.errors import StudyError
from common.registry import OptionsError, did_you_mean
from common.wording import in_words, rules_at, shown, wanted_kind

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 128 * 1024
MAX_DEPTH = 20


class Document:
    """A YAML mapping with the line of each of its values.

    Attributes:
        path: Where it was read; its folder is what relative paths inside it start from.
        data: The mapping, of plain Python values.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._lines: dict[Location, int] = {}
        if len(text) > MAX_BYTES:
            raise StudyError(f"{path}: more than {MAX_BYTES // 1024} KiB; this is not a file that a person wrote")
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            if isinstance(node, yaml.MappingNode):
                self._walk(node, ())
                self.data: dict[str, Any] = loader.construct_document(node)
                return
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise StudyError(f"{path}:{line}: {_yaml_problem(error)}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise StudyError(f"{path}:{line}: the character #x{error.character:04x} may not stand in YAML") from None
        except ValueError as error:
            raise StudyError(f"{path}: not valid YAML: {error}") from None
        if node is None:
            raise StudyError(f"{path}:1: the file is empty")
        what = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        raise StudyError(f"{path}:1: the file must hold keys with values (key: value), but it is {what}")

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read `path`; raises StudyError when it is missing, unreadable or not a YAML mapping."""
        try:
            with path.open("rb") as file:
                raw = file.read(4 * MAX_BYTES + 1)
            return cls(path, raw.decode("utf-8"))
        except FileNotFoundError:
            raise StudyError(f"{path}: no such file") from None
        except IsADirectoryError:
            raise StudyError(f"{path}: is a folder, not a file") from None
        except UnicodeDecodeError:
            raise StudyError(f"{path}: is not text in UTF-8") from None
        except OSError as error:
            raise StudyError(f"{path}: cannot be read ({error.strerror})") from None

    def line(self, location: Location) -> int:
        """The line (from 1) of the value at `location`, or of the nearest value that encloses it."""
        while location and location not in self._lines:
            location = location[:-1]
        return self._lines.get(location, 1)

    def error(self, location: Location, message: str) -> StudyError:
        """A StudyError that begins with file, line and key of `location`."""
        key = ".".join(map(str, location)) or "(whole file)"
        return StudyError(f"{self.path}:{self.line(location)}: {key}: {message}")

    def validate(
        self, model: type[Model], data: Mapping[str, Any], root: Location = (), also: Iterable[str] = ()
    ) -> Model:
        """`data`, which stands at `root` of this file, as `model`; raises StudyError naming every wrong place.

        Args:
            model: What `data` should be.
            data: The mapping.
            root: Where it stands in this file.
            also: Keys that may stand beside the model's in the file; they are offered when a key is mistyped.
        """
        try:
            return model.model_validate(data)
        except ValidationError as error:
            found = [
                _Problem((*root, *self._present(p.error, p.location, root)), p.error, p.model)
                for p in _flat(error, model)
            ]
            described = [self._described(problem, also) for problem in _without_other_members(found)]
            described.sort(key=lambda place: self.line(place[0]))
            messages = [str(self.error(*place)) for place in described]
            raise StudyError("\n".join(dict.fromkeys(messages))) from None

    def _described(self, problem: "_Problem", also: Iterable[str]) -> tuple[Location, str]:
        location, error, model = problem
        kind, context = error["type"], error.get("ctx", {})
        if kind == "extra_forbidden":
            known = _keys_beside(model, error["loc"])
            if len(location) == 1:
                known = [*known, *also]
            return location, (
                f"unknown key.{did_you_mean(str(error['loc'][-1]), known)}"
                + (f" Known here: {', '.join(known)}" if known else "")
            )
        if kind == "missing":
            return location, "this key is required"
        if kind == "union_tag_not_found":
            return location, f"the key {context['discriminator']} is required here"
        if kind == "wrong_at":
            return (*location, *location_of(context["at"])), str(error["msg"])
        tag = {"union_tag_invalid": str(context.get("discriminator", "")).strip("'"), "unknown_name": "name"}.get(kind)
        if tag and (*location, tag) in self._lines:
            location = (*location, tag)
        return location, in_words(error, model.model_json_schema())

    def _present(self, error: Mapping[str, Any], loc: Location, root: Location) -> Location:
        """`loc` without the tags that pydantic adds for unions: parts that the file has, and a missing last key."""
        kept: list[str | int] = []
        for i, part in enumerate(loc):
            last = i == len(loc) - 1
            if (*root, *kept, part) in self._lines or (last and error["type"] == "missing"):
                kept.append(part)
        return tuple(kept)

    def _walk(self, node: yaml.Node, location: Location) -> None:
        self._lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith((":str", ":int")):
                    raise StudyError(f"{self.path}:{line}: a key must be text; put it in quotes")
                place = (*location, int(key.value) if key.tag.endswith(":int") else key.value)
                if place in self._lines:
                    raise StudyError(
                        f"{self.path}:{line}: {'.'.join(map(str, place))}: this key stands twice "
                        f"(first on line {self._lines[place]})"
                    )
                self._lines[place] = line
                self._walk(value, place)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._walk(value, (*location, index))


def location_of(key: str) -> Location:
    """The location that `key` ("postprocess.0.labels") spells."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def wrong_at(key: str, message: str) -> PydanticCustomError:
    """For a model's validator: `message` about `key` ("plan.patch"), seen from the model."""
    return PydanticCustomError("wrong_at", "{message}", {"at": key, "message": message})


class _Problem(NamedTuple):
    """One of pydantic's errors, where it stands, and the model whose field it is about."""

    location: Location
    error: Mapping[str, Any]
    model: type[BaseModel]


def _flat(error: ValidationError, model: type[BaseModel], root: Location = ()) -> Iterator[_Problem]:
    """All errors in `error`, those within the options of a registry's entry at their own places."""
    for e in error.errors(include_url=False):
        cause = e.get("ctx", {}).get("error")
        if isinstance(cause, OptionsError):
            yield from _flat(cause.error, cause.model, (*root, *e["loc"]))
        else:
            yield _Problem((*root, *e["loc"]), e, model)


def _without_other_members(problems: list[_Problem]) -> list[_Problem]:
    """Keep of a union's errors those of the member that was meant.

    pydantic reports what is wrong for every member. A member that wants another kind of value was not meant if
    another one got further; if none did, what all of them want is said once. A list counts only its valid entries:
    that it is too short says nothing where one of them is wrong.
    """
    kept: list[_Problem] = []
    for p in problems:
        wanted = wanted_kind(p.error["type"])
        others = [o for o in problems if o is not p and o.location[: len(p.location)] == p.location]
        if p.error["type"] == "too_short" and any(len(o.location) > len(p.location) for o in others):
            continue
        if wanted and any(len(o.location) > len(p.location) or not wanted_kind(o.error["type"]) for o in others):
            continue
        same = [w for o in others if (w := wanted_kind(o.error["type"]))]
        if wanted and same:
            choices = " or ".join(dict.fromkeys(w for q in problems if q.location == p.location
                                                for w in [wanted_kind(q.error["type"])] if w))  # fmt: skip
            message = f"must be {choices}, but is {shown(p.error['input'])}"
            p = p._replace(error={**p.error, "type": "value_error", "msg": message})
        kept.append(p)
    return kept


def _keys_beside(model: type[BaseModel], loc: Location) -> list[str]:
    """The keys that `model` knows in the mapping in which the unknown key at `loc` stands."""
    rules = rules_at(model.model_json_schema(), loc[:-1])
    return list(dict.fromkeys(key for rule in rules for key in rule.get("properties", {})))


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem)
    if isinstance(error, _RefusedError):
        return problem
    if "\\t" in problem:
        return "a tab character; YAML wants spaces"
    if "mapping values are not allowed" in problem:
        return "a second ':' in one line; put text that has one in quotes, or check how far the line is indented"
    return f"not valid YAML: {problem}" + (f" ({error.context})" if error.context else "")


class _RefusedError(yaml.MarkedYAMLError):
    """Valid YAML that is not read here."""


class _Loader(yaml.SafeLoader):
    """Safe, without aliases, not deep, and with YAML 1.2's idea of numbers and truth."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's own way of setting it
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML does, refusing aliases and deep nesting."""
        self._depth += 1
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases (*name) are not read; write the value out")
        if self._depth > MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse(self, problem: str) -> None:
        raise _RefusedError(None, None, problem, self.get_mark())


# Section 10.3.2 of the YAML 1.2.2 specification; what may come first is PyYAML's index.
_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("int", r"[-+]?[0-9]+", [*"-+0123456789"]),
    ("float", rf"{_NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", [*"-+0123456789."]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^({_pattern})$"), _first)


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    # PyYAML would read 010 as octal.
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)
