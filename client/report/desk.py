"""`fedscan site report`, `fedscan site model list` and `show`."""

import json
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from client.device import pick_device
from client.models import find_model, home_models
from client.site import site_of_home
from common.bundle import USE, read_bundle

PAGE = "site-report.html"


def report(home: Path, out: Path | None, local: Path | None, most: int, device: str | None) -> None:
    """Write the site's page; see `fedscan site report`."""
    from client.report.gather import gather
    from client.report.page import write_page

    chosen = pick_device(device or site_of_home(home).device)
    own = read_bundle(local) if local is not None else None
    with Progress(console=Console(stderr=True), transient=True) as bar:

        def progress(title: str, steps: int) -> Callable[[], object]:
            task = bar.add_task(title, total=steps)
            return lambda: bar.advance(task)

        facts = gather(home, own, most, chosen, progress)
    path = out or home / PAGE
    write_page(path, facts)
    click.echo(f"{path} written. It shows scans of patients: it stays here")
    for text in facts.wrong:
        click.echo(f"  not shown: {text}", err=True)


def list_models(home: Path, as_json: bool) -> bool:
    """Show the models that came home; whether all can be read."""
    models, damaged = home_models(home)
    if as_json:
        told = [
            {"name": m.name, "folder": str(m.folder), "came": m.came.isoformat(), "study": m.card.study["name"],
             "digest": m.card.digest, "run": m.card.run, "own": m.card.own, "model": m.card.model,
             "figures": m.card.figures.model_dump(mode="json")} for m in models
        ]  # fmt: skip
        click.echo(json.dumps({"models": told, "damaged": damaged}, indent=1, ensure_ascii=False))
        return not damaged
    if not models:
        click.echo("no model has come home yet; one does when a run in which this site took part has ended")
    else:
        table = Table(box=None, pad_edge=False)
        table.add_column("model", no_wrap=True, overflow="ignore")
        for title in ("came", "run", "hospitals", "test Dice"):
            table.add_column(title, overflow="fold")
        for m in models:
            test = m.card.figures.test
            run = m.card.run + (f", this site's own ({m.card.own})" if m.card.own else "")
            sites = m.card.figures.sites or (test.sites if test else 0)
            table.add_row(
                m.name, f"{m.came.astimezone():%Y-%m-%d %H:%M}", run, str(sites or "–"),
                f"{test.dice:.3f}" if test else "–",
            )  # fmt: skip
        Console().print(table)
    for text in damaged:
        click.echo(f"damaged: {text}", err=True)
    return not damaged


def show_model(home: Path, name: str, as_json: bool) -> None:
    """Say what is known of a model, after every byte of it was checked.

    Raises:
        ModelError: There is none of that name, or it is damaged.
    """
    found = find_model(home, name)
    bundle = read_bundle(found.folder)
    card = bundle.card
    if as_json:
        click.echo(json.dumps({"name": found.name, "folder": str(found.folder), **card.model_dump(mode="json")},
                              indent=1, ensure_ascii=False))  # fmt: skip
        return
    f = card.figures
    click.echo(f"{found.name}, whole; came {found.came.astimezone():%Y-%m-%d %H:%M}")
    click.echo(f"  hash    {card.model}")
    click.echo(f"  study   {bundle.study.name} ({card.digest[:12]}), run {card.run}, round {f.round} of {f.rounds}")
    if card.own:
        click.echo(f"  own     {card.own}: this site ended with it; the figures are those of the global model")
    click.echo(f"  net     {bundle.study.net.name}, {card.parameters:,} numbers")
    if bundle.study.trains:
        click.echo(f"  learnt  at {f.sites} hospitals on {f.cases} cases")
    else:
        click.echo("  judged  in this study, not trained: the model was given")
    labels = [f"{label.value} {label.name}{f' ({label.code})' if label.code else ''}" for label in card.labels[1:]]
    click.echo(f"  masks   {', '.join(labels)}")
    for what, scores in (("validation", f.validation), ("test", f.test)):
        if scores is not None:
            by_label = zip(bundle.study.data.labels, scores.labels, strict=True)
            each = ", ".join(f"{n} {'–' if d is None else f'{d:.3f}'}" for n, d in by_label)
            sites = f"mean over {scores.sites} hospitals, {scores.cases} cases"
            click.echo(f"  {what:<11}Dice {scores.dice:.3f} ({each}; {sites})")
    click.echo(f"  in {found.folder}; masks with: fedscan predict {found.name} SCANS --out FOLDER")
    click.echo(f"  {USE}")
