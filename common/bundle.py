"""The trained model as one file that others can open: no code and no pickle, weights and what must be known of them.

    model/weights.safetensors    the net's tensors by name; the card is in its header (`fedscan.model`), so that this
                                 file alone is the model
    model/card.json              the card once more, for people and other programs

The card holds the whole study, and with it the plan, the net, the post-processing and the labels with their codes. Its
`model` is a hash over the study's digest and every tensor: the name by which results and hospitals speak of a model.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from common.disk import write_whole
from common.errors import ModelError
from common.figures import Figures
from common.nets import build_net
from common.own_choice import Candidate
from common.records import Record, RecordError, RunName, Sha256, canonical_json, read_record
from common.schema import Flat, Schema, left_at_sites
from common.section import AT_SITE
from common.study import Study
from common.traits import keeps_layers

WEIGHTS, CARD, KEY = "weights.safetensors", "card.json", "fedscan.model"
USE = "For research. Not a medical device."
MAX_CARD_BYTES = 4 * 1024 * 1024
SHORT = 12  # hex digits of a hash by which people call a model


class Label(Record):
    """One value of the masks that the model makes.

    Attributes:
        value: In the mask.
        name: As in the study.
        code: What the study calls it by, `CODE |Meaning|` of SNOMED CT, where it says so.
    """

    value: int = Field(ge=0, le=254)
    name: str = Field(max_length=63)
    code: str | None = Field(None, max_length=250)


class Card(Record):
    """What someone who opens the weights must know of them.

    Attributes:
        model: Hash over the study's digest and the tensors that all sites share.
        local: Hash over one site's own layers, where the study leaves some with the sites and a site has put its
            own in; only with them is such a model whole.
        own: Which candidate of `evaluation.own` it is, where a site ended with one instead of the global model.
        run: The run that made it.
        digest: The study's.
        study: The study, complete.
        labels: What the values of its masks mean, background first.
        parameters: Trainable numbers of the net.
        finished: Whether the run had ended, with the final test.
        figures: What the study found.
        versions: What it was made with.
        use: What it is for.
    """

    format: Literal["fedscan.model"] = "fedscan.model"
    version: Literal[1] = 1
    model: Sha256
    local: Sha256 | None = None
    own: Candidate | None = None
    run: RunName
    digest: Sha256
    study: dict[str, Any]
    labels: tuple[Label, ...]
    parameters: int = Field(ge=0)
    finished: bool
    figures: Figures
    versions: dict[str, str] = Field(max_length=10)
    use: str = Field(USE, max_length=200)


@dataclass(frozen=True)
class Bundle:
    """A model that was opened and found whole.

    Attributes:
        path: The file with its weights.
        card: What is known of it.
        study: The study in its card.
    """

    path: Path
    card: Card
    study: Study

    @property
    def complete(self) -> bool:
        """Whether it can be used: it lacks nothing that each site keeps for itself."""
        if self.card.local is not None or not keeps_layers(self.study):
            return True
        with torch.device("meta"):
            return not left_at_sites(build_net(self.study), self.study)

    def net(self) -> nn.Module:
        """The net, on the CPU, for evaluation.

        Raises:
            ModelError: Each site has layers of its own, and none are in it; or the file is damaged.
        """
        if not self.complete:
            raise ModelError(
                f"{self.path}: the study leaves layers with the sites (strategy, or rounds.buffers: local), and this "
                "file has none; use the model that came home to a site that took part (fedscan site model list)"
            )
        tensors = _tensors(self.path)
        net = build_net(self.study)
        net.load_state_dict(tensors, strict=True)
        return net.eval()

    def flat(self) -> Flat:
        """The weights as they cross; raises ModelError."""
        return Schema.of(self.study).pack(_tensors(self.path))


def name_of(study: Study, model: str) -> str:
    """How people call a model: the study's name and the beginning of the hash."""
    return f"{study.name}-{model[:SHORT]}"


def model_hash(digest: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash over a study's digest and tensors with their names, types and shapes, whatever their order."""
    total = sha256(b"fedscan model\0" + bytes.fromhex(digest))
    for name in sorted(tensors):
        values = _little(tensors[name])
        total.update(canonical_json([name, values.dtype.name, list(values.shape)]))
        total.update(memoryview(values.reshape(-1)).cast("B"))
    return total.hexdigest()


def model_hash_of(study: Study, flat: Mapping[str, NDArray[Any]]) -> str:
    """The same of weights as they cross."""
    return model_hash(study.digest(), _named(study, flat))


def labels_of(study: Study) -> tuple[Label, ...]:
    """The values of a study's masks."""
    named = (Label(value=i, name=n, code=study.data.codes.get(n)) for i, n in enumerate(study.data.labels, start=1))
    return (Label(value=0, name="background"), *named)


def write_bundle(
    folder: Path,
    study: Study,
    run: str,
    flat: Mapping[str, NDArray[Any]],
    figures: Figures,
    finished: bool = True,
    local: Mapping[str, Tensor] | None = None,
    own: Candidate | None = None,
) -> Card:
    """Write a model into `folder`, over an earlier one.

    Args:
        folder: Gets `weights.safetensors` and `card.json`.
        study: What was run.
        run: The run's name.
        flat: The weights, as they cross.
        figures: What the study found.
        finished: Whether the run has ended.
        local: Layers of one site by tensor name, where the study leaves them there.
        own: The candidate that it is, for a site's own model.

    Raises:
        StorageError: The disk is full.
    """
    digest, shared = study.digest(), _named(study, flat)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_net(study).parameters())
    extra = {name: tensor.detach().cpu().contiguous() for name, tensor in (local or {}).items()}
    card = Card(
        model=model_hash(digest, shared), local=model_hash(digest, extra) if extra else None, own=own,
        run=run, digest=digest,
        study=study.model_dump(mode="json"), labels=labels_of(study), parameters=parameters, finished=finished,
        figures=figures, versions=versions(),
    )  # fmt: skip
    text = card.canonical().decode()
    write_whole(folder / WEIGHTS, lambda part: save_file({**shared, **extra}, part, metadata={KEY: text}))
    shown = json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / CARD, lambda part: part.write_text(shown, encoding="utf-8"))
    return card


def read_bundle(path: Path) -> Bundle:
    """The model in `path`, every byte of it checked against its card.

    Args:
        path: A folder that `write_bundle` wrote, or its file with the weights.

    Raises:
        ModelError: There is none, it is damaged, or of another version; says what to do.
    """
    file = path / WEIGHTS if path.is_dir() else path
    card = read_card(file)
    study = _study(file, card)
    tensors = _tensors(file)
    names = {e.name for e in Schema.of(study).weights.entries}
    shared = {name: t for name, t in tensors.items() if name in names}
    extra = {name: t for name, t in tensors.items() if name not in names}
    local = model_hash(card.digest, extra) if extra else None
    if _shapes(study, local is not None) != {n: (str(t.dtype), tuple(t.shape)) for n, t in tensors.items()}:
        raise ModelError(f"{file}: its tensors are not those of the study's net; get the model again")
    if (model_hash(card.digest, shared), local) != (card.model, card.local):
        raise ModelError(f"{file}: its weights are not the ones of its card: damaged or altered; get the model again")
    return Bundle(file, card, study)


def read_card(file: Path) -> Card:
    """The card in a file of weights; the weights themselves are not looked at. Raises ModelError."""
    if not file.is_file():
        raise ModelError(f"{file}: no such model; a model is a folder with {WEIGHTS}, or that file itself")
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: damaged, or no model ({error}); get it again") from None
    if text is None:
        raise ModelError(f"{file}: holds weights, but no card of fedscan; a model is what a run writes into model/")
    try:
        return read_record(Card, text.encode(), MAX_CARD_BYTES)
    except RecordError as error:
        raise ModelError(f"{file}: its card {error}; made by another version of fedscan, or damaged") from None


def versions() -> dict[str, str]:
    """What a model was made with."""
    return {p: version(p) for p in ("fedscan", "flwr", "torch", "monai")} | {"python": platform.python_version()}


def _study(file: Path, card: Card) -> Study:
    try:
        study = Study.model_validate(card.study, context=AT_SITE)
    except (ValidationError, ValueError, TypeError):
        raise ModelError(f"{file}: its study cannot be read by this version of fedscan; install the same one") from None
    if study.digest() != card.digest or labels_of(study) != card.labels:
        raise ModelError(f"{file}: its card does not fit its study: damaged or altered; get the model again")
    if not card.figures.fits(len(study.data.labels)):
        raise ModelError(f"{file}: its figures are of other labels than the study's; get the model again")
    return study


def _shapes(study: Study, local: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor of the net, without memory for any."""
    with torch.device("meta"):
        net = build_net(study)
    own = frozenset() if local else left_at_sites(net, study)
    return {n: (str(t.dtype), tuple(t.shape)) for n, t in net.state_dict().items() if n not in own}


def _named(study: Study, flat: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Weights as they cross, as the net's tensors."""
    return {
        e.name: torch.from_numpy(np.array(flat[e.dtype][e.place], dtype=e.dtype)).reshape(e.shape)
        for e in Schema.of(study).weights.entries
    }


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 -- it is no dictionary
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: damaged ({error}); get the model again") from None


def _little(tensor: Tensor) -> Any:
    values = tensor.detach().cpu().contiguous().numpy()
    return values.astype(values.dtype.newbyteorder("<"), copy=False)
