"""What a study will do, for the people who must agree to it: what runs, what leaves a hospital, what never does.

The lists of what crosses come from the schema that both ends of the wire enforce (`common/wire.py`).
"""

import inspect
from collections.abc import Iterator
from typing import Any

from common import wire
from common.cards import card_of
from common.docstrings import descriptions, summary
from common.metrics import TOLD, WORST
from common.names import LOSSES, METRICS, NETS, POSTPROCESS, STRATEGIES, UPDATES
from common.nets.describe import activation_memory, net_size
from common.own_choice import CANDIDATES, CHOSEN, JUDGED, PREFIX, candidates, score_of
from common.registry import Registry
from common.section import Choice
from common.study import Study
from common.study_training import Rounds
from common.uplink import Uplink
from common.wording import shown

# Copies of the parameters that training holds: weights and gradients, and the optimiser's moments.
_COPIES = {"adamw": 4, "sgd": 3}

_METRICS = {
    "num-examples": "number of cases used",
    "steps": "number of training steps done",
    "loss": "mean training loss of the round",
    "loss-received": "mean loss of the net as it came, on a few training patches",
    "loss-trained": "mean loss of the trained net on the same patches",
    "seconds": "how long the site worked",
    "dice": "mean Dice over the cases and labels",
    "train": "number of training cases",
    "validation": "number of validation cases",
    "test": "number of test cases",
    "patients": "number of patients",
}
_STAYS = (
    "scans and everything computed from single scans, such as patches and predicted masks",
    "masks (the labels drawn by experts)",
    "names and identifiers of patients, and every DICOM header",
    "names of files and folders",
    "results of single cases",
    "texts of errors: only a code crosses",
)
_KEPT = "what the site keeps between rounds (the optimiser's state, what a coded update could not say)"


def facts(study: Study) -> dict[str, Any]:
    """Everything that `explain` says, as numbers and lists for scripts."""
    size, schema = net_size(study), wire.Schema.of(study)
    uplink = Uplink.of(study, schema)
    rounds, steps = study.rounds.number, study.training.steps
    validations = len([r for r in range(1, rounds + 1) if r % study.evaluation.every == 0 or r == rounds])
    if not study.trains:
        validations = int(study.evaluation.validation > 0)
    copies = _COPIES[study.training.optimizer] if study.trains else 1
    # The global weights come for training, for each validation and for the final test.
    received = rounds + validations + (1 if study.trains else int(study.evaluation.test > 0))
    return {
        "name": study.name,
        "digest": study.digest(),
        "net": {"name": study.net.name, "parameters": size.parameters, "buffers": size.buffers},
        "frozen": sum(e.size for e in schema.entries if e.kind == "frozen"),
        "start": None if study.start is None else study.start.model_dump(mode="json"),
        "update": {"arrays": uplink.sizes, "bytes": uplink.nbytes},
        "inference": study.evaluation.scheme.model_dump() | {"mirror": study.evaluation.mirror},
        "postprocess": [step.model_dump() for step in study.postprocess],
        "memory": {"weights": copies * size.bytes_fp32, "activations": activation_memory(study) if study.trains else 0},
        "rounds": rounds,
        "steps_per_round": steps,
        "epochs_per_round": study.training.epochs,
        "steps_per_site": None if steps is None else steps * rounds,
        "trains": study.trains,
        "validations": validations,
        "leaves": {
            "once": _worded(wire.JOIN_METRIC_KEYS),
            **({"every round": _worded(wire.train_metric_keys(study))} if study.trains else {}),
            "every validation and the final test": _worded(wire.evaluate_metric_keys(study)),
            **_choice_leaves(study),
            "instead of a reply that cannot be given": {"code": " or ".join(wire.ERROR_CODES)},
        },
        "stays": [*_STAYS, *([_KEPT] if study.trains else [])],
        "bytes_per_site": {"sent": rounds * uplink.nbytes, "received": received * schema.nbytes},
    }


def words(study: Study, known: dict[str, Any]) -> str:
    """`known` (from `facts`) as text for the people of a hospital."""
    return "\n".join([*_runs(study, known), "", *_leaves(study, known), "", *_totals(study, known)])


def _runs(study: Study, known: dict[str, Any]) -> Iterator[str]:
    memory = known["memory"]
    yield f"Study {study.name}" + (f": {study.description}" if study.description else "")
    yield f"digest {known['digest']}"
    yield ""
    yield "What runs at your site"
    images = f"{study.data.dimensions}D images ({', '.join(study.data.channels)})"
    does = "learns to outline " if study.trains else "judges a given model, trains nothing; it outlines "
    yield f"  {does} {', '.join(study.data.labels)} in {images}"
    if study.data.ignore is not None:
        yield f"    voxels of value {study.data.ignore} in the masks have no label: no loss and no Dice counts them"
    yield from _choice("net", NETS, study.net)
    yield f"    {known['net']['parameters']:,} parameters"
    if study.start is not None:
        part = "all of them" if study.start.parts == "all" else "all but the layers that make the classes"
        how = f"begins with given weights, not random ones ({part})" if study.trains else "its weights are given"
        yield f"    {how}; SHA-256 of their file:"
        yield f"    {study.start.sha256}"
    if study.trains:
        yield from _training(study, known)
    else:
        yield f"  memory  {in_bytes(memory['weights'])} of weights (libraries, caches and one look come on top)"
    kept = study.evaluation
    yield f"  patients kept apart  {kept.validation:.0%} for validation, {kept.test:.0%} for one test at the end"
    yield from _judging(study)


def _training(study: Study, known: dict[str, Any]) -> Iterator[str]:
    training, memory = study.training, known["memory"]
    yield from _choice("loss", LOSSES, study.loss)
    yield from _choice("strategy", STRATEGIES, study.strategy)
    yield from _choice("update", UPDATES, study.update)
    if training.freeze:
        yield f"  not trained, not sent back  {', '.join(training.freeze)}: {known['frozen']:,} of the parameters"
    yield f"  optimiser  {training.optimizer}, rate {training.rate:g}, schedule {training.schedule}"
    said = descriptions(Rounds)
    yield f"  mean of the sites  weights: {study.rounds.weights}  ({said['weights']})"
    length = f"{training.steps:,} steps" if training.steps else f"{training.epochs} passes over the training cases"
    yield f"  each round  {length} of {training.batch} patches of {' × '.join(map(str, study.plan.patch))}"
    total = known["steps_per_site"]
    yield f"  rounds  {known['rounds']:,}" + (f", so {total:,} steps in all" if total else "")
    held, step = memory["weights"], memory["activations"]
    whole = in_bytes(held + step)
    yield f"  memory  {whole}: weights, gradients, optimiser {in_bytes(held)}; one step {in_bytes(step)}"
    yield "    (libraries and caches come on top)"


def _judging(study: Study) -> Iterator[str]:
    kept = study.evaluation
    scheme = kept.scheme
    yield f"  inference  {scheme.method}: {summary(type(scheme))}"
    said = descriptions(type(scheme))
    yield from (f"    {key}: {shown(value)}  ({said[key]})" for key, value in scheme if key != "method")
    yield f"    windows overlap by {kept.overlap:.0%}"
    if kept.mirror:
        yield "    mean over the image and its mirror images along every combination of axes"
    for step in study.postprocess:
        yield from _choice("then", POSTPROCESS, step)
    for metric in kept.metrics:
        yield from _choice("measured", METRICS, metric)


def _choice(kind: str, registry: Registry, choice: Choice) -> Iterator[str]:
    target = registry.get(choice.name)
    said = descriptions(target)
    # A net, a strategy or an update has its own file, whose first line says what it is; others share theirs.
    own_file = registry in (NETS, STRATEGIES, UPDATES)
    yield f"  {kind}  {choice.name}: {summary(inspect.getmodule(target) if own_file else target)}"
    for option, value in choice.options.items():
        if option == "terms":
            for term in value:
                inner = Choice.model_validate({key: v for key, v in term.items() if key != "weight"})
                yield from (f"  {line}" for line in _choice(f"{term['weight']:g} ×", registry, inner))
        elif option == "net":
            yield from (f"  {line}" for line in _choice("2D net", registry, Choice.model_validate(value)))
        elif value is not None:
            meaning = said.get(option, "See ")
            yield f"    {option}: {shown(value)}" + ("" if meaning.startswith("See ") else f"  ({meaning})")


def _leaves(study: Study, known: dict[str, Any]) -> Iterator[str]:
    update = known["update"]
    arrays = " and ".join(f"{n:,} numbers ({dtype})" for dtype, n in update["arrays"].items())
    yield "What leaves your site"
    if study.trains:
        full = study.update.name == "full"
        what = "the weights of the net after training" if full else "what training changed in the net's weights, coded"
        what += " (of those that are trained)" if study.training.freeze else ""
        yield f"  every round: {what}, {arrays}, {in_bytes(update['bytes'])}"
    else:
        yield "  no weights: numbers about the given model alone"
    for when, items in known["leaves"].items():
        yield f"  {when}:" + ("" if when != "once" else " the site's name and")
        yield from (f"    {key}: {text}" for key, text in items.items() if key.count(".") < 2)
        more = sorted({key.split(".")[2] for key in items if key.count(".") == 2})
        if more:
            yield f"    METRIC.LABEL.{{{', '.join(more)}}}: {_spread_words(more)}"
    yield ""
    yield "What never leaves your site"
    yield from (f"  {thing}" for thing in known["stays"])
    yield ""
    yield "What to keep in mind"
    if not study.trains:
        yield "  A mean over a single case is that case's result: take part with several patients."
        return
    yield "  Weights are computed from scans, and who sees one site's weights may infer something of them (Zhu et al."
    yield "  2019, arXiv 1906.08935): the coordinator must be trusted with them. A mean over a single case is that"
    yield "  case's result: take part with several validation and test patients."


def _spread_words(more: list[str]) -> str:
    """What is told of each metric and label besides its mean."""
    words = {
        TOLD: "whether enough cases have a value", "q25": "quartiles over the cases, none of them one case's value",
        WORST: "the value of the worst case",
    }  # fmt: skip
    return "; ".join(text for key, text in words.items() if key in more)


def _totals(study: Study, known: dict[str, Any]) -> Iterator[str]:
    sent, received = known["bytes_per_site"]["sent"], known["bytes_per_site"]["received"]
    yield "In all, per site"
    yield f"  sent {in_bytes(sent)}, received {in_bytes(received)} (plus a few kilobytes of numbers and addresses)"
    if not study.trains:
        yield "  the model is judged once; nothing is trained"
        return
    yield (f"  {known['rounds']} rounds and {known['validations']} validations; a round lasts as long as the slowest "
           "site's steps" + (f", at most {study.rounds.deadline:g} s" if study.rounds.deadline else ""))  # fmt: skip


def _choice_leaves(study: Study) -> dict[str, dict[str, str]]:
    """What the final test tells of the model that the site ends with."""
    more = wire.evaluate_metric_keys(study, "test") - wire.evaluate_metric_keys(study)
    words = {CHOSEN: "which model the site ends with: " + ", ".join(f"{i} {n}" for i, n in enumerate(CANDIDATES)),
             JUDGED: "number of validation cases by which it was chosen"}  # fmt: skip
    for name in candidates(study):
        words[score_of(name)] = f"mean Dice of the {name} model over those"
    scores = _worded(frozenset(key.removeprefix(PREFIX) for key in more - words.keys()))
    told = {key: words[key] if key in words else f"{scores[key.removeprefix(PREFIX)]}, of that model" for key in more}
    return {"the final test, of the model that the site ends with": dict(sorted(told.items()))} if told else {}


def _worded(keys: frozenset[str]) -> dict[str, str]:
    """Metric keys with their meaning; those with a dot are per label, see `common.metrics.score_limits`."""
    return {key: _score(*key.split(".")) if "." in key else _METRICS[key] for key in sorted(keys)}


def _score(metric: str, label: str, what: str = "") -> str:
    if metric == "cases":
        return f"number of cases whose Dice of {label} exists"
    name = card_of(METRICS.get(metric)).title
    return {
        "": f"mean {name} of {label}",
        TOLD: f"1 if enough cases have a {name} of {label}, else 0",
        WORST: f"the worst case's {name} of {label}",
        "q25": f"{name} of {label} that a quarter of the cases are below",
        "median": f"{name} of {label} that half of the cases are below",
        "q75": f"{name} of {label} that three quarters of the cases are below",
    }[what]


def in_bytes(n: int) -> str:
    """In the unit in which one thinks of it: MB is 10⁶ bytes."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.3g} {unit}" if n / size < 1000 else f"{n / size:,.0f} {unit}"
    return f"{n} bytes"
