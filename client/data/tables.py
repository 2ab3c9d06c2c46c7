"""Cases listed in a table: a CSV file, or JSON in the form of MONAI's datalists."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from client.data.readers import stem
from client.data.volume import Case
from common.errors import DataError
from common.registry import did_you_mean

Row = Mapping[str, Any]
_T = TypeVar("_T")

# Tables that are recognised when the site names only the folder.
NAMES = ("cases.csv", "datalist.json", "datalist.csv")
# Lists of a datalist that somebody keeps apart from training.
_HELD_OUT = ("validation", "val", "testing", "test")
_PATIENT = ("patient", "subject", "patient_id", "subject_id")


def table_in(data: Path) -> Path | None:
    """The table that `data` is, or that lies in the folder `data`; None if there is none."""
    if data.is_file() and data.suffix.lower() in (".csv", ".json"):
        return data
    return next((data / name for name in NAMES if (data / name).is_file()), None)


def lists_images(table: Path) -> bool:
    """Whether `table` is a list of scans, and not something else that lies beside them; raises as `read_rows`."""
    return any(image_files(table, row) for row in read_rows(table)[:1])


def cases_in(table: Path, where: Mapping[str, str]) -> list[Case]:
    """The cases of `table` whose columns have the values of `where`; paths start from the table's folder.

    Of a datalist only the list `training` is read; `held_out` tells of the others.

    Columns: `image` (several files separated by `;`, or a list in JSON) or `image_0`, `image_1`, …; `label`;
    `patient` or `subject`; `case` or `id`. Other columns serve `where`.

    Raises:
        DataError: The table cannot be read, has no image column, or no row is left by `where`.
    """
    rows = read_rows(table)
    if not rows:
        where_else = f" under `training`, only under {', '.join(aside)}" if (aside := held_out(table)) else ""
        raise DataError(f"{table}: the table has no rows{where_else}. List one case per row.")
    chosen = _filter(table, rows, where)
    images = [_images(table, number, row) for number, row in chosen]
    ids = _ids(table, [row for _, row in chosen], images)
    return [
        Case(id_, patient_of(row) or id_, files, _file(table, str(row.get("label") or "")))
        for id_, files, (_, row) in zip(ids, images, chosen, strict=True)
    ]


def read_rows(table: Path) -> list[Row]:
    """The rows of a CSV or JSON table, columns by name."""
    return _parsed(table, _json_rows if table.suffix.lower() == ".json" else _csv_rows)


def held_out(table: Path) -> dict[str, int]:
    """The lists beside `training` of a JSON datalist, with their number of entries; they are never trained on.

    Raises:
        DataError: The table cannot be read.
    """
    if table.suffix.lower() != ".json":
        return {}
    content = _parsed(table, json.loads)
    lists = {name: content.get(name) for name in _HELD_OUT} if isinstance(content, dict) else {}
    return {name: len(entries) for name, entries in lists.items() if isinstance(entries, list) and entries}


def patient_of(row: Row) -> str:
    """The patient that a row names, or an empty string."""
    return next((str(row[name]).strip() for name in _PATIENT if str(row.get(name) or "").strip()), "")


def image_files(table: Path, row: Row) -> tuple[Path, ...]:
    """The image files that a row names, one per channel; empty if it names none."""
    value = row.get("image")
    if isinstance(value, list | tuple):
        names = [str(name) for name in value]
    elif value:
        names = str(value).split(";")
    else:
        numbered = {int(m[1]): str(row[key]) for key in row if (m := re.fullmatch(r"image_(\d+)", key)) and row[key]}
        names = [numbered[number] for number in sorted(numbered)]
    files = (_file(table, name) for name in names)
    return tuple(file for file in files if file is not None)


def _parsed(table: Path, parse: Callable[[str], _T]) -> _T:
    try:
        return parse(table.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, csv.Error, TypeError, AttributeError) as error:
        raise DataError(
            f"{table}: cannot be read as a table ({type(error).__name__}: {error}). Save it as UTF-8 CSV with a header "
            'row, or as JSON of the form {"training": [{"image": ..., "label": ...}]}.'
        ) from None


def _csv_rows(text: str) -> list[Row]:
    header = text.partition("\n")[0]
    comma = ";" if ";" in header and "," not in header else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=comma, strict=True, restkey="")
    return [{k.strip(): (v or "").strip() for k, v in row.items() if k} for row in reader]


def _json_rows(text: str) -> list[Row]:
    content = json.loads(text)
    entries = content if isinstance(content, list) else content.get("training", [])
    return [{"image": entry} if isinstance(entry, str) else dict(entry) for entry in entries]


def _filter(table: Path, rows: Sequence[Row], where: Mapping[str, str]) -> list[tuple[int, Row]]:
    """Rows with their number (from 1) that fulfil `where`."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column, value in where.items():
        if column not in columns:
            hint = did_you_mean(column, columns)
            raise DataError(f"{table}: where names the column '{column}'; there are {', '.join(columns)}.{hint}")
        present = sorted({str(row.get(column)) for row in rows})
        if value not in present:
            shown = ", ".join(present[:10]) + (", …" if len(present) > 10 else "")
            raise DataError(f"{table}: where asks for {column} = '{value}'; the column has {shown}.")
    chosen = [
        (number, row)
        for number, row in enumerate(rows, start=1)
        if all(str(row.get(column)) == value for column, value in where.items())
    ]
    if not chosen:
        raise DataError(f"{table}: no row fulfils all conditions of where ({dict(where)}). Loosen them.")
    return chosen


def _images(table: Path, number: int, row: Row) -> tuple[Path, ...]:
    files = image_files(table, row)
    if not files:
        raise DataError(
            f"{table}: row {number} names no image. Give a column `image` (or image_0, image_1, … for channels); "
            f"the table has {', '.join(row)}."
        )
    return files


def _ids(table: Path, rows: Sequence[Row], images: Sequence[tuple[Path, ...]]) -> list[str]:
    """The column `case` or `id`; else the image's name, with its folders where names repeat (`s1/image.nii`)."""
    given = [str(row.get("case") or row.get("id") or "").strip() for row in rows]
    if not all(given):
        given = [stem(files[0]) for files in images]
        if len(set(given)) < len(given):
            given = [_with_folders(table, files[0]) for files in images]
    twice = [name for name, times in Counter(given).items() if times > 1]
    if twice:
        raise DataError(f"{table}: {twice[0]} stands in several rows. Give each case its own name in a column `case`.")
    return given


def _with_folders(table: Path, file: Path) -> str:
    inside = file.relative_to(table.parent) if file.is_relative_to(table.parent) else file
    return "_".join((*inside.parts[:-1], stem(file))).lstrip("/_.")


def _file(table: Path, name: str) -> Path | None:
    return table.parent / name.strip() if name.strip() else None
