"""What there is to choose from: the entries of a registry with their words, options and, for nets, their size."""

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from common.cards import NetCard, StrategyCard, UpdateCard, card_of
from common.docstrings import descriptions
from common.names import NETS
from common.nets.describe import FP32_BYTES, size_of
from common.registry import Registry
from common.wording import shown

LABELS = 1  # of the example study in whose terms a net's size is given: one label and the background
_RANGE = (("minimum", "≥ {:g}"), ("exclusiveMinimum", "> {:g}"), ("maximum", "≤ {:g}"), ("exclusiveMaximum", "< {:g}"))


def entry(registry: Registry, name: str) -> dict[str, Any]:
    """Everything the catalogue says of one entry, ready for JSON; a net's sizes are with one label.

    Raises:
        PydanticCustomError: `registry` has no such entry.
    """
    target = registry.get(name)
    card = card_of(target)
    facts: dict[str, Any] = {
        "name": name,
        "title": card.title,
        "source": card.source,
        "suited": card.suited,
        "about": _about(target),
        "options": list(_options(registry, name)),
    }
    if isinstance(card, NetCard):
        facts |= {
            "dimensions": list(card.dimensions),
            "channels": card.channels,
            "norm": registry.check(name, {}).get("norm", "the paper's"),
            "receptive_field": card.receptive_field,
            "federation": card.federation,
            "small": dict(card.small),
            "sizes": {f"{n}D": _size(name, n, small=False) for n in card.dimensions},
            "sizes_small": {f"{n}D": _size(name, n, small=True) for n in card.dimensions},
        }
    if isinstance(card, StrategyCard):
        facts |= {"equation": card.equation, "server": card.server, "site": card.site, "sent": card.sent}
    if isinstance(card, UpdateCard):
        facts |= {"equation": card.equation, "size": card.size, "site": card.site}
    return facts


def rows(net: nn.Module, image: torch.Tensor) -> list[tuple[str, str, tuple[int, ...], int]]:
    """The net as a table: name, kind, output's shape and parameters of each part, in the order in which they work.

    Parts are the net's children, and the members of its lists; a part that works several times stands once.

    Args:
        net: On the meta device or any other.
        image: `(B, C, *S)` on the same device.
    """
    found: dict[str, tuple[str, str, tuple[int, ...], int]] = {}
    hooks = []
    for name, part in _parts(net):
        size = sum(p.numel() for p in part.parameters())

        def note(module: nn.Module, _: Any, output: Any, name: str = name, size: int = size) -> None:
            tensor = output[0] if isinstance(output, (list, tuple)) else output
            shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else ()
            found.setdefault(name, (name, type(module).__name__, shape, size))

        hooks.append(part.register_forward_hook(note))
    try:
        with torch.no_grad():
            net.train()(image)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


def architecture(name: str, dimensions: int, options: Mapping[str, Any]) -> tuple[list[int], list[Any]]:
    """The shape of an example image that fits the net, and `rows` for it; nothing is allocated."""
    card = card_of(NETS.get(name))
    channels = card.channels if isinstance(card, NetCard) else 1
    with torch.device("meta"):
        net = NETS.get(name)(dimensions, channels, LABELS + 1, **NETS.check(name, options))
        # Two voxels or more at the lowest level, and about the patch that one would choose.
        usual = 64 if dimensions == 3 else 256
        sides = [max(2 * n, -(-usual // n) * n) for n in net.divisor]
        image = torch.empty(2, channels, *sides)
    return list(image.shape), rows(net, image)


def _parts(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, part in net.named_children():
        if isinstance(part, (nn.ModuleList, nn.ModuleDict)):
            yield from _parts(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


@cache
def _size(name: str, dimensions: int, *, small: bool) -> dict[str, Any]:
    card = card_of(NETS.get(name))
    if not isinstance(card, NetCard):
        raise TypeError(f"net {name} has no NetCard")
    with torch.device("meta"):
        options = NETS.check(name, card.small if small else {})
        net = NETS.get(name)(dimensions, card.channels, LABELS + 1, **options)
    size = size_of(net)
    total = size.parameters + size.buffers
    return {
        "parameters": size.parameters,
        "buffers": size.buffers,
        "megabytes_fp32": round(total * FP32_BYTES / 1e6, 3),
        "megabytes_fp16": round(total * FP32_BYTES / 2e6, 3),
    }


def _options(registry: Registry, name: str) -> Iterator[dict[str, Any]]:
    schema = registry.options(name).model_json_schema()
    said = descriptions(registry.get(name))
    for key, rule in schema.get("properties", {}).items():
        yield {
            "name": key,
            "default": rule.get("default"),
            "required": key in schema.get("required", ()),
            "allowed": allowed(rule),
            "about": said.get(key, ""),
        }


def allowed(rule: Mapping[str, Any]) -> str:
    """A JSON schema's rule in a few words: `small | medium | large`, `whole number ≥ 2 ≤ 256`, `true | false`."""
    if "anyOf" in rule:
        members = [allowed(member) for member in rule["anyOf"] if member.get("type") != "null"]
        return " or ".join(dict.fromkeys(members)) + (" or none" if len(members) < len(rule["anyOf"]) else "")
    if "enum" in rule:
        return " | ".join(str(value) for value in rule["enum"])
    if "const" in rule:
        return str(rule["const"])
    if "$ref" in rule:
        return "a name, or a name with its options"
    words = {
        "integer": "whole number", "number": "number", "boolean": "true | false", "string": "text", "array": "list",
        "object": "keys with values",
    }  # fmt: skip
    limits = [text.format(rule[key]) for key, text in _RANGE if key in rule]
    return " ".join([words.get(rule.get("type", ""), "see its description"), *limits])


def _about(target: Any) -> str:
    """The docstring's own words: of a class its own, of a function its module's; without the section Args."""
    words = inspect.getdoc(target if inspect.isclass(target) else inspect.getmodule(target)) or ""
    kept = []
    inside = False
    for line in words.splitlines():
        inside = line == "Args:" or (inside and (not line or line.startswith(" ")))
        if not inside:
            kept.append(line)
    return "\n".join(kept).strip()


def default_of(option: Mapping[str, Any]) -> str:
    """An option's default as one writes it in a study; `required` where there is none."""
    return "required" if option["required"] else shown(option["default"])
