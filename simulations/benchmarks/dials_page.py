"""Table and picture of what `dials.py` measured: docs/dials.md and docs/dials.png."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from common.disk import write_whole

TABLE, PICTURE = "dials.md", "dials.png"
Row = Mapping[str, Any]
Figures = dict[tuple[str, str, str], tuple[float, float] | None]
Column = tuple[str, str]

# Lightness rises with the value, so that it reads the same in grey.
_COLOURS = "cividis"
_INCH_PER_ROW, _INCH_PER_COLUMN, _LEFT, _HEAD = 0.27, 0.52, 1.7, 0.62
_DPI, _SIZE = 100, 9

_TEXT = """\
# Which strategy holds when one thing goes wrong

Measured by `python -m simulations.benchmarks.dials`: five phantom hospitals of 2D pictures, a small U-Net with batch
normalisation, the same six rounds of five steps for all; {seeds}. Options are at their defaults.
One dial is turned at a time. Figures are test Dice of hospitals 1 to 4 with the weights of the last round: **mean**,
then the worst of the four. Hospital 5 is the one at fault where one is, so its own figure never counts.
Phantoms are easy and small: what tells is how far a figure falls within its row, not its second digit. *stops*: the
sites refused the global weights, which were beyond their limits, and the run ended for want of replies.

![Mean and worst site's Dice of each strategy under each dial](dials.png)

| dial | what is turned |
|---|---|
| no dial | hospitals that differ mildly (`difference: 0.3`), as in all columns |
| contrast | `contrast` of the phantoms: exponents of the grey value curve from e^−x to e^x |
| rarity | `rarity`: this share of the patients of hospitals 2 and 4 has no kidney |
| wrong labels | `wrong_labels`: in this share of hospital 5's cases liver and kidneys bear each other's number |
| away | hospital 5 joins, and then answers nothing in half of the rounds, or in all |
| poison | hospital 5 multiplies its update (weights minus those it received) by this number, in every round |

"""


def write_page(results: Sequence[Row], folder: Path) -> None:
    """Write table and picture into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = page_text(results)
    write_whole(folder / TABLE, lambda part: part.write_text(text, encoding="utf-8"))
    draw(results, folder / PICTURE)


def figures(results: Sequence[Row]) -> Figures:
    """Mean and worst site's Dice by (strategy, dial, strength), means over seeds; none where a run stopped."""
    found: dict[tuple[str, str, str], list[tuple[float, float] | None]] = {}
    for row in results:
        dice = list(row["sites"].values())
        value = None if row["stopped"] or not dice else (fmean(dice), min(dice))
        found.setdefault((row["strategy"], row["dial"], row["strength"]), []).append(value)
    return {key: _mean(values) for key, values in found.items()}


def _mean(values: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return None
    return fmean(mean for mean, _ in there), fmean(worst for _, worst in there)


def page_text(results: Sequence[Row]) -> str:
    """The table as Markdown, with how to read it."""
    seeds = len({row["seed"] for row in results})
    head = _TEXT.format(seeds="one seed" if seeds == 1 else f"means of {seeds} seeds")
    return head + "\n".join(_table(results)) + "\n"


def _table(results: Sequence[Row]) -> Iterator[str]:
    strategies, columns, values = _strategies(results), _columns(results), figures(results)
    yield "| strategy | " + " | ".join(_head(column) for column in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for strategy in strategies:
        cells = (_cell(values.get((strategy, *column))) for column in columns)
        yield f"| `{strategy}` | " + " | ".join(cells) + " |"


def _cell(value: tuple[float, float] | None) -> str:
    return "stops" if value is None else f"**{value[0]:.2f}** {value[1]:.2f}"


def _head(column: Column) -> str:
    return column[0] if column[0] == "no dial" else f"{column[0]} {column[1]}"


def _strategies(results: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["strategy"] for row in results))


def _columns(results: Sequence[Row]) -> list[Column]:
    return list(dict.fromkeys((row["dial"], row["strength"]) for row in results))


def draw(results: Sequence[Row], path: Path) -> None:
    """A PNG of two tables, mean above worst site, whose cells are the darker the lower the Dice."""
    strategies, columns, values = _strategies(results), _columns(results), figures(results)
    height = 2 * (_INCH_PER_ROW * len(strategies) + _HEAD) + 0.15
    width = _LEFT + _INCH_PER_COLUMN * len(columns) + 0.1
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    for which, title in enumerate(("Mean of four sites", "Worst of four sites")):
        table = np.array([[_value(values.get((s, *c)), which) for c in columns] for s in strategies])
        rows = _INCH_PER_ROW * len(strategies)
        bottom = height - (which + 1) * (rows + _HEAD)
        axes = figure.add_axes((_LEFT / width, bottom / height, _INCH_PER_COLUMN * len(columns) / width, rows / height))
        _panel(axes, table, columns, strategies, title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    # Enough for one scale of colours and grey letters, and a third of the bytes.
    picture = Image.open(buffer).convert("RGB").quantize(128)
    write_whole(path, lambda part: picture.save(part, format="PNG", optimize=True))


def _value(value: tuple[float, float] | None, which: int) -> float:
    return float("nan") if value is None else value[which]


def _panel(
    axes: Axes, table: np.ndarray[Any, Any], columns: Sequence[Column], strategies: Sequence[str], title: str
) -> None:
    colours = matplotlib.colormaps[_COLOURS].with_extremes(bad="white")
    axes.imshow(table, cmap=colours, vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(table.shape):
        value = table[row, column]
        # Above the middle of the scale the ground is light.
        colour = "black" if not value <= 0.55 else "white"
        text = "stops" if np.isnan(value) else f"{value:.2f}"
        axes.text(column, row, text, color=colour, size=_SIZE, ha="center", va="center")
    axes.set_yticks(range(len(strategies)), strategies, size=_SIZE)
    axes.set_xticks(range(len(columns)), ["" if d == "no dial" else s for d, s in columns], size=_SIZE)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axes.text(-0.6, -1.3, title, size=_SIZE + 1, weight="bold", ha="right", va="center")
    for start, stop, dial in _groups(columns):
        axes.text((start + stop) / 2, -1.55, dial, size=_SIZE, ha="center", va="center", weight="bold")
        axes.axvline(stop + 0.5, color="white", lw=4)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _groups(columns: Sequence[Column]) -> Iterator[tuple[int, int, str]]:
    """First and last place of each dial's columns."""
    dials = [dial for dial, _ in columns]
    for dial in dict.fromkeys(dials):
        first = dials.index(dial)
        yield first, first + dials.count(dial) - 1, dial
