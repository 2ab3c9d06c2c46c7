"""Cases that their site leaves out, with the reason: no later cache and no later round uses them."""

import json
import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.disk import write_whole
from common.errors import DataError

FILE = "excluded.json"


class Exclusion(BaseModel):
    """Why a case is left out.

    Attributes:
        reason: In the words of the one who decided it.
        when: Time of the decision.
        who: Name of the user of this machine who decided it.
        marks: What the case consists of (`client.data.left_out`): under another name it is left out, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: str = Field(min_length=1, max_length=1000)
    when: AwareDatetime
    who: str
    marks: tuple[str, ...] = ()


_TABLE = TypeAdapter(dict[str, Exclusion])


def exclusions(home: Path) -> dict[str, Exclusion]:
    """The excluded cases of the site in `home`, by case id.

    Raises:
        DataError: The file is damaged. Nothing goes on then: a case that was taken out must not come back unseen.
    """
    path = home / FILE
    if not os.path.lexists(path):
        return {}
    try:
        return _TABLE.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}). It says which cases are left out: restore it from a "
            "backup, or delete it and exclude them again."
        ) from None


def exclude(home: Path, case: str, reason: str, who: str, marks: Collection[str] = ()) -> None:
    """Leave `case` out from now on.

    A name that is on the list already may have come to mean another case: what it meant before stays out as well.

    Args:
        home: The site's folder.
        case: The case's id.
        reason: Why.
        who: Who decided it.
        marks: What the case consists of, as far as that is known.

    Raises:
        DataError: As `exclusions`.
        StorageError: The file cannot be written.
    """
    table = exclusions(home)
    known = set(table[case].marks) if case in table else set()
    entry = Exclusion(reason=reason, when=datetime.now(UTC), who=who, marks=tuple(sorted(known | set(marks))))
    _write(home, {**table, case: entry})


def include(home: Path, case: str) -> None:
    """Take `case` in again.

    Raises:
        DataError: It is not excluded, or as `exclusions`.
        StorageError: The file cannot be written.
    """
    table = exclusions(home)
    if case not in table:
        raise DataError(f"case {case} is not excluded here. `fedscan data check` lists those that are.")
    _write(home, {name: entry for name, entry in table.items() if name != case})


def _write(home: Path, table: Mapping[str, Exclusion]) -> None:
    rows = {name: entry.model_dump(mode="json") for name, entry in table.items()}
    text = json.dumps(rows, indent=1, sort_keys=True, ensure_ascii=False)
    write_whole(home / FILE, lambda part: part.write_text(text + "\n", encoding="utf-8"))
