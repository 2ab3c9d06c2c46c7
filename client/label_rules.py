"""How a site says which of its stored structures are a study's label."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

# Instead of a rule: nobody here annotates this label. Where it is, is not known; it is not background.
UNLABELLED = "unlabelled"


class LabelRange(BaseModel):
    """Stored values `from` … `to` (both included), for masks that are grey rather than binary."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float = Field(alias="from")
    high: float = Field(float("inf"), alias="to")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"from ({self.low:g}) must not be above to ({self.high:g})")
        return self

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


class LabelCode(BaseModel):
    """A coded concept that DICOM and 3D Slicer files give their structures. Where both are given, both must fit.

    Attributes:
        code: Of the structure's type, e.g. "10200004" (SNOMED CT's liver); the number alone.
        category: Of its category, e.g. "49755003" (morphologically abnormal structure).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    code: str | None = Field(None, min_length=1, max_length=64)
    category: str | None = Field(None, min_length=1, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _digits(cls, value: Any) -> Any:
        # Written without quotes, a code is a number in YAML.
        return {k: str(v) if type(v) is int else v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.code is None and self.category is None:
            raise ValueError("give code or category")
        return self

    def __str__(self) -> str:
        given = (("code", self.code), ("category", self.category))
        return " of ".join(f"{name} {value}" for name, value in given if value)


def _kind(value: Any) -> str:
    """Which form of a rule is meant, so that what is wrong with it is said of that form alone."""
    if isinstance(value, LabelRange) or (isinstance(value, dict) and value.keys() & {"from", "to"}):
        return "range"
    if isinstance(value, LabelCode | dict):
        return "code"
    if isinstance(value, list | tuple):
        return "list"
    return "text" if isinstance(value, str) else "number"


def _spelt(text: str) -> str:
    """A slip in the one word that is no name would quietly make background of what nobody annotated."""
    if text != UNLABELLED and text.strip().casefold() in (UNLABELLED, "unlabeled"):
        raise ValueError(f"write `{UNLABELLED}`, if nobody here annotates it")
    return text


_Number = Annotated[int, Tag("number")]
_Text = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_spelt), Tag("text")]
_Code = Annotated[LabelCode, Tag("code")]
_Range = Annotated[LabelRange, Tag("range")]
LabelEntry = Annotated[_Number | _Text | _Code, Discriminator(_kind)]
_List = Annotated[tuple[LabelEntry, ...], Field(min_length=1), Tag("list")]
LabelRule = Annotated[_Number | _Text | _Code | _Range | _List, Discriminator(_kind)]


def entries(rule: LabelRule) -> tuple[LabelEntry | LabelRange, ...]:
    """The parts of a rule, any of which may fit; none for `unlabelled`."""
    if rule == UNLABELLED:
        return ()
    return tuple(dict.fromkeys(rule)) if isinstance(rule, tuple) else (rule,)
