"""The one mechanism by which a study names nets, losses and strategies.

A registry is a closed table of names and import targets. An entry is imported when it is first used, so `--help`
stays fast; its options are the keyword-only parameters of the target, checked against their annotations.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import PydanticCustomError


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest of `choices`, else an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


class OptionsError(ValueError):
    """The options of a registry's entry are wrong.

    Attributes:
        model: The entry's options as a model.
        error: What is wrong with them.
    """

    def __init__(self, model: type[BaseModel], error: ValidationError) -> None:
        super().__init__(str(error))
        self.model = model
        self.error = error


class Registry:
    """A closed table: name -> "package.module:callable".

    Args:
        kind: What the entries are, for messages: "net", "loss", "strategy".
        targets: Import targets by name.
    """

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)
        self._options: dict[str, type[BaseModel]] = {}

    def names(self) -> list[str]:
        """The names a study may use, in the table's order."""
        return list(self._targets)

    def get(self, name: str) -> Callable[..., Any]:
        """The callable behind `name`; raises PydanticCustomError (shown with line and key) for an unknown one."""
        if name not in self._targets:
            raise PydanticCustomError(
                "unknown_name",
                "unknown {kind} '{name}'.{hint} Known: {known}",
                {"kind": self.kind, "name": name, "known": ", ".join(self._targets),
                 "hint": did_you_mean(name, self._targets)},
            )  # fmt: skip
        module, attribute = self._targets[name].split(":")
        target: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return target

    def options(self, name: str) -> type[BaseModel]:
        """The options of `name` as a validated model that forbids unknown keys."""
        if name not in self._options:
            target = self.get(name)
            hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
            fields: dict[str, Any] = {
                p.name: (hints[p.name], ... if p.default is p.empty else p.default)
                for p in inspect.signature(target).parameters.values()
                if p.kind is p.KEYWORD_ONLY
            }
            config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
            self._options[name] = create_model(f"{name}_options", __config__=config, **fields)
        return self._options[name]

    def check(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """`options` of `name` with every default filled in; raises OptionsError, or as `get` does."""
        model = self.options(name)
        try:
            return model.model_validate(dict(options)).model_dump()
        except ValidationError as error:
            raise OptionsError(model, error) from None
