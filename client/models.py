"""The models that came home to a site: where they lie, and which one a name means."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.bundle import WEIGHTS, Bundle, Card, read_bundle, read_card
from common.errors import ModelError


@dataclass(frozen=True)
class HomeModel:
    """A model in the site's folder.

    Attributes:
        name: By which people call it: the study's name and the beginning of the model's hash.
        folder: Where it lies.
        card: What is known of it; its weights were not looked at yet.
        came: When it came.
    """

    name: str
    folder: Path
    card: Card
    came: datetime


def models_folder(home: Path) -> Path:
    """Where the models of the site in `home` lie."""
    return home / "trainer" / "models"


def home_models(home: Path) -> tuple[list[HomeModel], list[str]]:
    """The models of the site in `home`, the newest first, and why others cannot be read.

    Raises:
        ModelError: The folder may not be read by this user.
    """
    found, damaged = [], []
    try:
        files = sorted(models_folder(home).glob(f"*/{WEIGHTS}"))
        for file in files:
            try:
                came = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                found.append(HomeModel(file.parent.name, file.parent, read_card(file), came))
            except ModelError as error:
                damaged.append(str(error))
    except PermissionError:
        raise ModelError(
            f"{models_folder(home)} is for the trainer's user only: run this as that user, or within its container"
        ) from None
    return sorted(found, key=lambda m: m.came, reverse=True), damaged


def find_model(home: Path, name: str) -> HomeModel:
    """The model of that name, or the only one whose name begins so; raises ModelError that lists what there is."""
    models, _ = home_models(home)
    exact = [m for m in models if m.name == name]
    near = exact or [m for m in models if m.name.startswith(name)]
    if len(near) == 1:
        return near[0]
    if near:
        raise ModelError(f"{name!r} may be {', '.join(m.name for m in near)}; write one of them")
    there = ", ".join(m.name for m in models) or "none: a model comes home when a run in which the site took part ends"
    raise ModelError(f"no model {name!r} here. Models of this site: {there}")


def open_model(model: str, home: Path) -> Bundle:
    """The model that `model` names: a file, a folder, or one that came home to the site in `home`.

    Raises:
        ModelError: There is none, or it is damaged.
    """
    path = Path(model)
    if path.exists():
        return read_bundle(path)
    return read_bundle(find_model(home, model).folder)
