"""Overlay pictures: one slice with the expert's and the model's contours."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from common.labels import IGNORE

# Okabe & Ito, Color Universal Design (2008), without black and blue, which drown in grey scans.
COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00")
WIDTH_PX = 400
MARGIN = 0.45
"""Share of the structure's size that is shown around it on each side."""
SMALLEST = 0.3
"""The crop is never smaller than this share of the slice, so that one still sees where in the body it is."""

DASHES = (0, (3, 1.5))
LEGEND_COLUMNS, LEGEND_ROW = 4, 17

Array = NDArray[Any]


def overlay(
    image: Array,
    truth: Array,
    prediction: Array,
    spacing: Sequence[float],
    path: Path,
    title: str,
    labels: Sequence[str] = (),
) -> None:
    """Write a PNG of about 400 pixels' width: the slice with most truth, truth solid, prediction dashed.

    Volumes show an axial slice as radiologists look at it: anterior up, the patient's right on the left.

    Args:
        image: One channel, `(X, Y, Z)` in RAS+ order or `(H, W)`.
        truth: Label map of the same shape; 0 is background, IGNORE is not drawn.
        prediction: As `truth`.
        spacing: Voxel size in mm along the array's axes.
        path: The PNG to write; its folder is created.
        title: One line above the picture.
        labels: Names of labels 1, 2, …; "label N" where none is given.

    Raises:
        ValueError: The arrays are not of one shape with two or three axes.
    """
    if not (image.shape == truth.shape == prediction.shape and image.ndim in (2, 3) and len(spacing) == image.ndim):
        raise ValueError(f"image {image.shape}, truth {truth.shape}, prediction {prediction.shape} and "
                         f"spacing {tuple(spacing)} must agree and have 2 or 3 axes")  # fmt: skip
    truth = np.where(truth == IGNORE, 0, truth)
    if image.ndim == 3:
        z = best_slice(truth, prediction)
        image, truth, prediction = (radiological(a[:, :, z]) for a in (image, truth, prediction))
        height_mm, width_mm = float(spacing[1]), float(spacing[0])
    else:
        height_mm, width_mm = float(spacing[0]), float(spacing[1])
    low, high = np.percentile(image.astype(np.float64), [0.5, 99.5])
    window = crop((truth > 0) | (prediction > 0), (height_mm, width_mm))
    picture = _draw(image[window], truth[window], prediction[window], height_mm / width_mm, (low, high), title, labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def best_slice(truth: Array, prediction: Array) -> int:
    """Index along the last axis with most truth; without truth, with most prediction; else the middle."""
    for mask in (truth, prediction):
        area = (mask > 0).sum(axis=(0, 1))
        if area.any():
            return int(np.argmax(area))
    return int(truth.shape[2]) // 2


def radiological(axial: Array) -> Array:
    """`(X, Y)` in RAS+ order as `(row, column)`: anterior in the first row, the patient's right in the first column."""
    return axial[::-1, ::-1].T


def crop(mask: NDArray[np.bool_], spacing: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of a window, square in mm where the slice allows, around `mask`; everything if it is empty."""
    if not mask.any():
        return slice(None), slice(None)
    size = [n * mm for n, mm in zip(mask.shape, spacing, strict=True)]
    found = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1)]
    extent = max((f[-1] - f[0] + 1) * mm for f, mm in zip(found, spacing, strict=True))
    side = max(extent * (1 + 2 * MARGIN), SMALLEST * max(size))
    window = []
    for f, mm, n in zip(found, spacing, mask.shape, strict=True):
        voxels = min(n, max(1, round(side / mm)))
        first = int(np.clip((f[0] + f[-1] + 1) / 2 - voxels / 2, 0, n - voxels))
        window.append(slice(first, first + voxels))
    return window[0], window[1]


def _draw(
    image: Array,
    truth: Array,
    prediction: Array,
    aspect: float,
    window: tuple[float, float],
    title: str,
    labels: Sequence[str],
) -> Image.Image:
    height, width = image.shape
    shown = sorted(({*np.unique(truth)} | {*np.unique(prediction)}) - {0})
    tall = min(max(WIDTH_PX * height * aspect / width, 120), 2 * WIDTH_PX)
    legend_rows = -(-(len(shown) + 2) // LEGEND_COLUMNS)
    top, bottom = 24, 6 + LEGEND_ROW * legend_rows
    total = tall + top + bottom
    figure = Figure(figsize=(WIDTH_PX / 100, total / 100), dpi=100, facecolor="black")
    axes = figure.add_axes((0, bottom / total, 1, tall / total))
    axes.set_axis_off()
    axes.imshow(image, cmap="gray", vmin=window[0], vmax=max(window[1], window[0] + 1e-6), aspect=aspect,
                interpolation="bilinear")  # fmt: skip
    for label in shown:
        colour = COLOURS[(int(label) - 1) % len(COLOURS)]
        _contour(axes, truth == label, colour, "solid")
        _contour(axes, prediction == label, colour, "dashed")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    figure.text(0.02, 1 - 12 / total, title, color="white", size=8.5, va="center", parse_math=False)
    _legend(figure, shown, labels, total)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="black")
    # 128 colours are enough for greys and six hues, and a third of the bytes.
    return Image.open(buffer).convert("RGB").quantize(128)


def _legend(figure: Figure, shown: Sequence[int], labels: Sequence[str], total: float) -> None:
    """Line styles and label colours below the picture, filled row by row."""
    entries = [("truth", Line2D([], [], color="white", lw=1.6)),
               ("prediction", Line2D([], [], color="white", lw=1.6, ls=DASHES))]  # fmt: skip
    for label in map(int, shown):
        name = labels[label - 1] if label <= len(labels) else f"label {label}"
        entries.append((name, Line2D([], [], color=COLOURS[(label - 1) % len(COLOURS)], lw=5)))
    rows = -(-len(entries) // LEGEND_COLUMNS)
    for i, (name, line) in enumerate(entries):
        row, column = divmod(i, LEGEND_COLUMNS)
        x, y = 0.02 + 0.245 * column, (3 + LEGEND_ROW * (rows - row - 0.5)) / total
        line.set(xdata=[x, x + 0.05], ydata=[y, y], transform=figure.transFigure)
        figure.add_artist(line)
        figure.text(x + 0.065, y, name, color="white", size=7.5, va="center", parse_math=False)


def _contour(axes: Axes, mask: NDArray[np.bool_], colour: str, style: str) -> None:
    """Outline `mask`, with a thin dark rim that keeps it visible on bright tissue."""
    if not mask.any():
        return
    # A rim of background closes contours that touch the crop's edge.
    padded = np.pad(mask, 1).astype(float)
    x, y = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
    dashes = "solid" if style == "solid" else [DASHES]
    found = axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=1.7, linestyles=dashes)
    found.set_path_effects([withStroke(linewidth=2.8, foreground="black", alpha=0.55)])
