"""The weights with which a run begins: the study's random ones, or those of a file whose hash stands in the study.

Only the coordinator (or a simulation) has the file; sites get the weights as they get those of any round.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from common.bundle import WEIGHTS, Card, read_bundle, read_card
from common.errors import ModelError, StudyError
from common.nets import build_net
from common.nets.head import head_of
from common.schema import Entry, Flat, Schema
from common.section import AT_SITE
from common.seeds import derive
from common.study import Study

_SHOWN = 3  # wrong tensors that are named


def random_weights(study: Study, schema: Schema) -> Flat:
    """The weights that the study's seed gives, the same everywhere."""
    torch.manual_seed(derive(study.seed, "weights"))
    return schema.pack(build_net(study).state_dict())


def first_weights(study: Study, schema: Schema, file: Path | None) -> Flat:
    """The weights before the first round, as they cross.

    Args:
        study: What is run.
        schema: Its own; what strategies add is zero.
        file: Where the study's `start` lies.

    Raises:
        StudyError: The study begins with a file, and none is given.
        ModelError: It is not that file, or does not fit the study's net.
    """
    flat = random_weights(study, schema)
    if study.start is None:
        return flat
    if file is None:
        raise StudyError(
            f"study {study.name} begins with the weights {study.start.sha256[:12]} (start.sha256), and their file was "
            "not given: name it in the study file as start.file"
        )
    tensors = start_tensors(study, schema, file)
    for e in schema.weights.entries:
        if e.name in tensors:
            flat[e.dtype][e.place] = tensors[e.name].numpy().reshape(-1)
    if (fault := schema.fault(flat)) is not None:
        raise ModelError(f"{file}: {fault}; get it again")
    return flat


def start_tensors(study: Study, schema: Schema, file: Path) -> dict[str, Tensor]:
    """The tensors that the study takes from its `start`; raises ModelError unless the file is the one, and fits."""
    assert study.start is not None  # noqa: S101 -- for the type checker
    found = sha256_of(file)
    if found != study.start.sha256:
        raise ModelError(
            f"{file}: its hash is {found[:12]}…, the study's start.sha256 is {study.start.sha256[:12]}…: another file, "
            f"or it was changed. Get the right one; if this one is meant, `fedscan study start {file}` says its hash"
        )
    card = card_of_file(file)
    if card is not None and study.start.parts == "all":
        _same_labels(file, card, study)
    body = study.start.parts == "body"
    apart = frozenset(head_of(study)) if body else frozenset[str]()
    entries = [e for e in schema.weights.entries if e.name not in apart]
    try:
        with safe_open(file, framework="pt") as opened:
            there = set(opened.keys())
            tensors = {e.name: opened.get_tensor(e.name) for e in entries if e.name in there}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: cannot be read as safetensors ({error}); get it again") from None
    if wrong := list(_wrong(entries, tensors)):
        more = f"; {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        only_head = not body and {text.partition(" ")[0] for text in wrong} <= set(head_of(study))
        todo = (
            "To begin with all but the layers that make the classes, write start.parts: body" if only_head
            else f"The study's net is {study.net.name}: take net and options of that file's study, or another file"
        )  # fmt: skip
        raise ModelError(f"{file}: does not fit the study's net: {'; '.join(wrong[:_SHOWN])}{more}. {todo}")
    return tensors


def start_file(study: Study, folder: Path) -> Path | None:
    """The file that `start.file` names, from `folder` on; none where it names none."""
    if study.start is None or study.start.file is None:
        return None
    return weights_in(folder / Path(study.start.file).expanduser())


def weights_in(path: Path) -> Path:
    """The file with the weights: `path`, or the one in it where it is a model's folder."""
    return path / WEIGHTS if path.is_dir() else path


def sha256_of(file: Path) -> str:
    """Hash of the file's bytes, in hex; raises ModelError when it cannot be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); start.file is looked for from the study file's "
                         "folder on") from None  # fmt: skip


def card_of_file(file: Path) -> Card | None:
    """The card in a file that a run wrote; none where there is none, or it is of another version."""
    try:
        return read_card(file)
    except ModelError:
        return None


def start_facts(path: Path) -> dict[str, Any]:
    """What there is to know of a file with which a study may begin.

    Raises:
        ModelError: It holds no weights, or is damaged.
    """
    file = weights_in(path)
    sha256 = sha256_of(file)
    card = card_of_file(file)
    if card is not None:
        read_bundle(file)
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = len(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: holds no weights as safetensors ({error})") from None
    known: dict[str, Any] = {"file": str(file), "sha256": sha256, "tensors": tensors}
    if card is not None:
        known |= {"study": card.study["name"], "run": card.run, "net": card.study["net"]["name"],
                  "labels": [label.name for label in card.labels[1:]]}  # fmt: skip
    return known


def start_lines(known: Mapping[str, Any]) -> str:
    """The same as lines for a study file."""
    said = f"{known['tensors']} tensors, without a card of fedscan"
    if "study" in known:
        said = f"{known['study']}, run {known['run']}: {known['net']} that outlines {', '.join(known['labels'])}"
    return "\n".join((
        f"start:  # {said}",
        f"  file: {json.dumps(known['file'], ensure_ascii=False)}  # from the study file's folder on",
        f"  sha256: {json.dumps(known['sha256'])}",
        "  parts: all  # or body: without the layers that make the classes, for other labels",
    ))  # fmt: skip


def differences(study: Study, card: Card) -> Iterator[tuple[str, str]]:
    """Where a study differs from the one whose model it begins with, in what the model has learnt to expect.

    Yields:
        Key, and what to think of.
    """
    try:
        before = Study.model_validate(card.study, context=AT_SITE)
    except ValueError:
        return
    for key, old, new in (
        ("data.channels", before.data.channels, study.data.channels),
        ("plan.spacing", before.plan.spacing, study.plan.spacing),
        ("plan.size", before.plan.size, study.plan.size),
        ("plan.intensity", before.plan.intensity, study.plan.intensity),
        ("net", before.net, study.net),
    ):
        if old != new:
            yield key, f"the model of start.file learnt with another one ({_shown(old)})"


def _shown(value: object) -> str:
    return str(value.model_dump(mode="json") if hasattr(value, "model_dump") else value)


def _same_labels(file: Path, card: Card, study: Study) -> None:
    names = tuple(label.name for label in card.labels[1:])
    if names != study.data.labels:
        raise ModelError(
            f"{file}: outlines {', '.join(names)}, the study's data.labels are {', '.join(study.data.labels)}. Give "
            "the same labels in the same order, or write start.parts: body, which leaves out the layers that make the "
            "classes"
        )


def _wrong(entries: list[Entry], tensors: dict[str, Tensor]) -> Iterator[str]:
    """What is wrong with each tensor that is; begins with its name."""
    for e in entries:
        tensor = tensors.get(e.name)
        if tensor is None:
            yield f"{e.name} is not in it"
        elif tuple(tensor.shape) != e.shape:
            yield f"{e.name} is {_times(tuple(tensor.shape))}, the net's is {_times(e.shape)}"
        elif str(tensor.dtype) != f"torch.{e.dtype}":
            yield f"{e.name} is {str(tensor.dtype).removeprefix('torch.')}, the net's is {e.dtype}"
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            yield f"{e.name} holds NaN or infinite values"


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"
