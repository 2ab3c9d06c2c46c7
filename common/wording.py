"""Plain words for what is wrong with a value that a person wrote."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from common.registry import did_you_mean

Schema = Mapping[str, Any]

# What pydantic calls a value of the wrong kind, in words; the first word is what the key wants.
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "keys with values",
    "model": "keys with values",
}
_OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_LENGTH = ("too_short", "too_long", "string_too_short", "string_too_long")


def wanted_kind(error_type: str) -> str | None:
    """What should have stood there, if `error_type` (pydantic's) says that a value is of the wrong kind."""
    return _WANTED.get(error_type.split("_")[0])


def in_words(error: Mapping[str, Any], schema: Schema) -> str:
    """What is wrong, with the value that was given and what is allowed.

    Args:
        error: One of pydantic's errors.
        schema: The JSON schema of the model that was validated.
    """
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    rules = rules_at(schema, error["loc"])
    if kind in _OUT_OF_RANGE:
        allowed = next(filter(None, map(_range, rules)), error["msg"])
        return f"{shown(given)} is outside the allowed range: {allowed}"
    if kind in _LENGTH:
        return _length(given, context)
    if kind == "multiple_of":
        return f"{shown(given)} is not a multiple of {context['multiple_of']:g}"
    if kind == "literal_error":
        return f"{shown(given)} is not one of {context['expected']}.{_near(given, context['expected'])}"
    if kind == "union_tag_invalid":
        tags = context["expected_tags"]
        return f"'{context['tag']}' is not one of {tags}.{_near(context['tag'], tags)}"
    if kind == "string_pattern_mismatch":
        form = next((r["description"] for r in rules if "description" in r), f"pattern {context['pattern']}")
        return f"{shown(given)} is not allowed here: {form}"
    if kind == "invalid_key":
        return "a key must be text; put it in quotes"
    wanted = wanted_kind(kind)
    if wanted:
        return f"must be {wanted}, but is {shown(given)}{_quotes(wanted, given)}"
    message = str(error["msg"])
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def shown(value: Any, longest: int = 60) -> str:
    """`value` as one would write it in the file, shortened."""
    if value is None:
        return "empty"
    if isinstance(value, float):
        return f"{value:g}"
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def plain(value: Any) -> str:
    """As `shown`, but text without its quotes: for titles."""
    return value if isinstance(value, str) else shown(value)


def rules_at(schema: Schema, loc: Sequence[str | int]) -> list[Schema]:
    """The parts of `schema` that govern the value at `loc`: several for a union, none for an unknown key.

    `loc` may hold the names that pydantic gives to members of a union: the tag of a discriminated union chooses
    its member, others are skipped.
    """
    here = [schema]
    for part in loc:
        below = [rule for node in here for rule in _below(_resolved(schema, node), part)]
        here = below or here
    return [rule for node in here for rule in _resolved(schema, node)]


def _resolved(root: Schema, node: Schema) -> list[Schema]:
    if "$ref" in node:
        return _resolved(root, root["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    members = [*node.get("anyOf", []), *node.get("oneOf", []), *node.get("allOf", [])]
    return [node, *(found for member in members for found in _resolved(root, member))]


def _below(nodes: Iterable[Schema], part: str | int) -> Iterator[Schema]:
    for node in nodes:
        tagged = node.get("discriminator", {}).get("mapping", {})
        if part in tagged:
            yield {"$ref": tagged[part]}
        elif isinstance(part, int):
            if isinstance(node.get("items"), dict):
                yield node["items"]
        elif part in node.get("properties", {}):
            yield node["properties"][part]
        elif isinstance(node.get("additionalProperties"), dict):
            yield node["additionalProperties"]


def _range(rules: Schema) -> str:
    """`above 0, at most 10` from the bounds in `rules`."""
    words = (
        ("exclusiveMinimum", "above"),
        ("minimum", "at least"),
        ("exclusiveMaximum", "below"),
        ("maximum", "at most"),
    )
    return ", ".join(f"{word} {rules[key]:.10g}" for key, word in words if key in rules)


def _length(given: Any, context: Mapping[str, Any]) -> str:
    unit = "characters" if isinstance(given, str) else "entries"
    size = len(given) if isinstance(given, Sequence) else context.get("actual_length", 0)
    if "min_length" in context:
        return f"{size} {unit}; at least {context['min_length']} wanted"
    return f"{size} {unit}; at most {context['max_length']} allowed"


def _near(given: Any, expected: str) -> str:
    return did_you_mean(str(given), [word.strip(" '") for word in expected.replace(" or ", ",").split(",")])


def _quotes(wanted: str, given: Any) -> str:
    return "; put it in quotes" if wanted == "text" and isinstance(given, bool | int | float) else ""
