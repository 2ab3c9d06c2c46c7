"""What can be said of a study beyond its form: whether net, patch and loss fit, and what looks unintended."""

from collections.abc import Iterator
from pathlib import Path

from common.documents import Document, Location, location_of
from common.errors import ModelError, StudyError
from common.section import Choice
from common.study import SIMULATION_KEYS, Study, study_of
from common.traits import keeps_layers, traits_of

# nnU-Net stops halving an axis that is this much coarser than the others (Isensee et al. 2021).
ANISOTROPIC = 2.0


def check_study(path: Path) -> tuple[Study, list[str]]:
    """Read the study file and try net and loss on it without allocating them.

    Returns:
        The study, and remarks `file:line: key: text` on what is allowed but may be unintended.

    Raises:
        StudyError: Naming every wrong place.
    """
    document = Document.read(path)
    study = study_of(document)
    fits(document, study)
    places = [
        *_remarks(study), *_start_remarks(document, study),
        *((key, _OUTSIDE) for key in SIMULATION_KEYS if key in document.data),
    ]  # fmt: skip
    return study, [str(document.error(location_of(key), text)) for key, text in places]


_OUTSIDE = "for simulations only: outside the digest, and checked by `fedscan simulate`"


def fits(document: Document, study: Study) -> None:
    """Try one training step on shapes alone; raises StudyError when net, patch and loss do not fit each other."""
    import torch

    from common.losses import build_loss
    from common.names import STRATEGIES
    from common.nets import build_net, check_patch
    from common.nets.describe import activation_memory
    from common.schema import Schema
    from common.start import start_file, start_tensors

    def within(location: Location, error: Exception) -> StudyError:
        return document.error(location, str(error))

    try:
        with torch.device("meta"):
            net = build_net(study)
    except (ValueError, StudyError) as error:
        raise within(("net",), error) from None
    try:
        check_patch(study, net)
    except StudyError as error:
        raise within(("plan", "patch"), error) from None
    try:
        build_loss(study, net)
        activation_memory(study)
    except (ValueError, StudyError, RuntimeError) as error:
        raise within(("loss",), error) from None
    try:
        STRATEGIES.get(study.strategy.name)(**study.strategy.options)
    except (ValueError, StudyError) as error:
        raise within(("strategy",), error) from None
    file = start_file(study, document.path.parent)
    if file is not None and file.exists():
        try:
            start_tensors(study, Schema.of(study), file)
        except ModelError as error:
            raise within(("start",), error) from None


def _start_remarks(document: Document, study: Study) -> Iterator[tuple[str, str]]:
    from common.start import card_of_file, differences, start_file

    if study.start is None:
        return
    file = start_file(study, document.path.parent)
    if file is None or not file.exists():
        yield (
            "start",
            f"{file or 'start.file'} is not here, so nothing was held against it; only the coordinator needs it",
        )
        return
    card = card_of_file(file)
    if card is not None:
        yield from differences(study, card)


def _remarks(study: Study) -> list[tuple[str, str]]:
    """Key and text of each remark."""
    plan, training, kept = study.plan, study.training, study.evaluation
    total = None if training.steps is None else training.steps * study.rounds.number
    coarse = plan.spacing is not None and max(plan.spacing) >= ANISOTROPIC * min(plan.spacing)
    larger = plan.size is not None and any(p > s for p, s in zip(plan.patch, plan.size, strict=True))
    possible = (
        (
            study.data.dimensions == 3 and plan.spacing is None,
            "plan",
            "without spacing every scan keeps its own voxel size; structures differ in voxels between scanners",
        ),
        (
            coarse and study.net.options.get("strides", ()) is None,
            "plan.spacing",
            "voxels are far from cubes; net.strides can leave the coarse axis alone at first, e.g. [1, 2, 2]",
        ),
        (larger, "plan.patch", "larger than plan.size: every picture is padded"),
        (
            total is not None and study.trains and training.warmup >= total,
            "training.warmup",
            f"the whole study has {total} steps: the rate never reaches its top",
        ),
        (
            _acts_on_unlabelled(study.loss) and study.data.ignore is None,
            "loss",
            "entropy acts on voxels without a label, but data.ignore names no value for them: it is always 0",
        ),
        (
            study.start is not None and keeps_layers(study),
            "start",
            "the layers that the strategy (or rounds.buffers: local) leaves at the sites begin as without it",
        ),
        (
            study.start is not None and kept.own is not None and kept.own.local,
            "evaluation.own.local",
            "only the coordinator has the file of start: a model that a site trains alone begins at random",
        ),
        (
            traits_of(study).personal and kept.own is None,
            "strategy",
            "trains a personal model at each site that nothing uses; evaluation.own lets the sites choose it",
        ),
        (
            kept.validation == 0 and study.trains,
            "evaluation.validation",
            "no patients for validation: no round can be chosen as the best, the last one is taken",
        ),
        (
            not study.trains and kept.leaves_training,
            "evaluation",
            f"{1 - kept.validation - kept.test:.0%} of the patients take no part; with test: 1 all judge the model",
        ),
        (
            kept.mirror,
            "evaluation.mirror",
            "training shows no mirror images: it suits structures that look alike mirrored, not sides of a body",
        ),
        (kept.test == 0, "evaluation.test", "no patients are kept for the final test"),
    )
    return [(key, text) for applies, key, text in possible if applies]


def _acts_on_unlabelled(loss: Choice) -> bool:
    return "entropy" in (loss.name, *(term["name"] for term in loss.options.get("terms", ())))
