"""`fedscan predict`: the model, the images, a bar, a table of what was written."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client.device import pick_device
from client.models import open_model
from client.prediction.inputs import Inputs, inputs_of
from client.prediction.work import Predicted, Predictor
from client.site import SeriesRule, site_of_home
from common.bundle import USE, Bundle, name_of
from common.disk import write_whole
from common.errors import DataError

TABLE = "predictions.csv"


def predict(model: str, images: Sequence[Path], out: Path, device: str, home: Path, as_json: bool) -> bool:
    """Write masks of `images` into `out`; whether all of them could be looked at.

    Args:
        model: A bundle's folder or file, or the name of a model of the site in `home`.
        images: Files and folders.
        out: Folder for the masks.
        device: As in `site.yaml`.
        home: The site's folder; what its `site.yaml` says of DICOM series counts, where there is one.
        as_json: Tell it as JSON on standard output.

    Raises:
        ModelError: The model cannot be used.
        DataError: There is no image.
    """
    bundle = open_model(model, home)
    found = inputs_of(images, bundle.study, _rules(home))
    predictor = Predictor(bundle, pick_device(device))
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    done, failed = _all(predictor, found, out, console)
    write_whole(out / TABLE, lambda part: _write_table(part, bundle, done))
    if as_json:
        click.echo(json.dumps(_json(bundle, out, done, failed, found.left_out), indent=1, ensure_ascii=False))
        return not failed
    for text in found.left_out:
        console.print(f"[yellow]left out:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)
    for where, why in failed.items():
        click.echo(f"{click.style('error:', fg='red', bold=True)} {where}: {why}", err=True)
    segs = sum(p.seg is not None for p in done)
    also = f", {segs} of them also as DICOM SEG" if segs else ""
    click.echo(f"{len(done)} of {len(found.subjects)} masks are in {out}{also}; volumes in {out / TABLE}")
    click.echo(f"  made by {name_of(bundle.study, bundle.card.model)}. {USE}")
    return not failed


def _all(predictor: Predictor, found: Inputs, out: Path, console: Console) -> tuple[list[Predicted], dict[str, str]]:
    done: list[Predicted] = []
    failed: dict[str, str] = {}
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(found.subjects))
        for subject in found.subjects:
            try:
                done.append(predictor.write(subject, out))
            except DataError as error:
                failed[subject.where] = str(error)
            bar.advance(task)
    return done, failed


def _rules(home: Path) -> dict[str, SeriesRule]:
    return site_of_home(home).series if (home / "site.yaml").exists() else {}


def _write_table(path: Path, bundle: Bundle, done: Sequence[Predicted]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["name", "source", "mask", "seg", *(f"ml.{label}" for label in bundle.study.data.labels), "model"]
        )
        for p in done:
            seg = p.seg.name if p.seg else ""
            found = (f"{v:.3f}" for v in p.volumes)
            writer.writerow([p.subject.name, p.subject.where, p.mask.name, seg, *found, bundle.card.model])


def _json(
    bundle: Bundle, out: Path, done: Sequence[Predicted], failed: dict[str, str], left_out: Sequence[str]
) -> dict[str, object]:
    labels = bundle.study.data.labels
    return {
        "model": bundle.card.model, "out": str(out), "use": USE,
        "done": [{"name": p.subject.name, "source": p.subject.where, "mask": p.mask.name,
                  "seg": p.seg.name if p.seg else None, "ml": dict(zip(labels, p.volumes, strict=True))} for p in done],
        "failed": failed, "left_out": list(left_out),
    }  # fmt: skip
