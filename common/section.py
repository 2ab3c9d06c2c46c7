"""What the parts of a study are made of: sections without unknown keys, and choices from a registry."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_serializer, model_validator

from common.names import STRATEGIES
from common.registry import Registry

# The three parts into which a site's patients are divided.
Part = Literal["train", "validation", "test"]
Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="lower-case letters, digits, - and _, first a letter or digit, at most 63",
    ),
]
Fraction = Annotated[float, Field(ge=0, le=1)]
ROUNDING = 1e-9  # of shares: 0.9 + 0.1 need not be 1 as floats


class Section(BaseModel):
    """Base of the study's sections: no unknown keys, nothing changes after validation, NaN refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any) -> Any:
        # pydantic would take true for 1; as a word it is refused with the key's own message.
        if not isinstance(value, dict):
            return value
        number = {k for k, field in cls.model_fields.items() if field.annotation not in (bool, str)}
        return {k: str(v).lower() if isinstance(v, bool) and k in number else v for k, v in value.items()}


class Choice(BaseModel):
    """A name from a registry and its options, written flat: `{name: dynunet, size: small}` or just `dynunet`."""

    model_config = ConfigDict(frozen=True)
    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and set(value) == {"name", "options"} and isinstance(value["options"], dict):
            return value
        if isinstance(value, dict):
            options = {k: v for k, v in value.items() if k != "name"}
            return {**({"name": value["name"]} if "name" in value else {}), "options": options}
        return value

    @model_serializer
    def _flatten(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


# Validation context of a site: it takes the strategy as it stands, because the server's code is not the site's to load.
AT_SITE = {"unchecked": STRATEGIES.kind}


def choice_from(registry: Registry) -> AfterValidator:
    """Check a Choice against `registry` and fill in the defaults of its options."""

    def check(choice: Choice, info: ValidationInfo) -> Choice:
        if info.context and info.context.get("unchecked") == registry.kind:
            return choice
        return choice.model_copy(update={"options": registry.check(choice.name, choice.options)})

    return AfterValidator(check)
