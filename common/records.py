"""Small JSON documents that strangers exchange: closed keys, one spelling, bounded size."""

import json
from hashlib import sha256
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$")]


# A list or object of no bytes to speak of takes a hundred of memory: 16 MiB of them would take gigabytes.
_FREE, _PER = 200_000, 32  # parts that any record may have, and bytes for each one more


class RecordError(ValueError):
    """The bytes are not the record that was expected; the message says what is wrong, for the caller to place."""


class Record(BaseModel):
    """Base of everything that is signed or exchanged: no unknown keys, no conversions, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    def canonical(self) -> bytes:
        """The record's one spelling: JSON, keys sorted, no white space, UTF-8."""
        return canonical_json(self.model_dump(mode="json"))

    def sha256(self) -> str:
        """SHA-256 of `canonical()`, in hex."""
        return sha256(self.canonical()).hexdigest()


AnyRecord = TypeVar("AnyRecord", bound=Record)


def canonical_json(value: Any) -> bytes:
    """`value` as JSON in the one spelling that is hashed and signed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def read_record(model: type[AnyRecord], raw: bytes, limit: int) -> AnyRecord:
    """`raw` as a `model`.

    Args:
        model: What the bytes should be.
        raw: JSON in UTF-8.
        limit: Bytes above which nothing is parsed.

    Raises:
        RecordError: Too long, not JSON, a key that stands twice or is not known, a value outside its bounds.
    """
    if len(raw) > limit:
        raise RecordError(f"is {len(raw)} bytes long; at most {limit} are read")
    if sum(raw.count(sign) for sign in (b",", b"[", b"{")) > _FREE + len(raw) // _PER:
        raise RecordError("has more parts than a record of its length")
    try:
        # Parsed twice: of two equal keys pydantic would take the last, and readers must not differ in what they see.
        json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise RecordError("; ".join(_places(error))) from None
    except UnicodeDecodeError:
        raise RecordError("is not text in UTF-8") from None
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"is not JSON ({getattr(error, 'msg', 'a number is too long')})") from None
    except RecursionError:
        raise RecordError("is nested too deeply") from None


def read_canonical(model: type[AnyRecord], raw: bytes, limit: int) -> AnyRecord:
    """As `read_record`, and `raw` must be the record's one spelling, so that equal records have equal hashes."""
    record = read_record(model, raw, limit)
    if record.canonical() != raw:
        raise RecordError("is not in its canonical form")
    return record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RecordError("has a key that stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise RecordError(f"has the value {name}, which is not a number")


def _places(error: ValidationError) -> list[str]:
    """Each wrong place; values are left out, because a record may come from a stranger."""
    found = error.errors(include_url=False, include_input=False)[:5]
    return [f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg']}" for e in found]
