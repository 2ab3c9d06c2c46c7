"""The study as a JSON Schema, for editors that complete and check while one types."""

import json
from typing import Any

from pydantic import BaseModel

from common.docstrings import descriptions, summary
from common.names import LOSSES, METRICS, NETS, POSTPROCESS, STRATEGIES, UPDATES
from common.registry import Registry
from common.study import SIMULATION_KEYS, Study
from common.study_evaluation import Evaluation, FixedPoint, Sliding
from common.study_plan import Data, Percentile, Plan, Window, ZScore
from common.study_training import Rounds, Start, Training

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PARTS = (Data, Evaluation, FixedPoint, Percentile, Plan, Rounds, Sliding, Start, Training, Window, ZScore)


def study_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a study file, with the options of everything that is chosen by name."""
    schema = Study.model_json_schema()
    definitions = schema["$defs"]
    del definitions["Choice"]
    for part in _PARTS:
        _describe(definitions[part.__name__], part)
    # The model says it in words of its own; a null counts as not given.
    definitions["Training"]["not"] = {
        "required": ["steps", "epochs"],
        "properties": {"steps": {"type": "integer"}, "epochs": {"type": "integer"}},
    }
    # Nor is anything trained without rounds.
    judges = {"properties": {"rounds": {"properties": {"number": {"const": 0}}, "required": ["number"]}}}
    schema["required"].remove("training")
    schema["anyOf"] = [{"required": ["training"]}, {**judges, "required": ["rounds", "start"]}]
    for key, registry in (("net", NETS), ("loss", LOSSES), ("strategy", STRATEGIES), ("update", UPDATES)):
        default = schema["properties"][key].get("default")
        schema["properties"][key] = {**_choice(registry, definitions), "default": default}
    # The only choice within a choice: planar's 2D net.
    definitions["Choice"] = {"$ref": "#/properties/net"}
    definitions["Term"] = _term(schema["properties"]["loss"])
    steps = schema["properties"]["postprocess"]
    steps["items"] = _choice(POSTPROCESS, definitions)
    steps["description"] = "What is done with what the net found, in this order: at validation, test and prediction."
    definitions["Evaluation"]["properties"]["metrics"]["items"] = _choice(METRICS, definitions)
    for key in SIMULATION_KEYS:
        schema["properties"][key] = {"description": "For simulations only; outside the digest."}
    return {"$schema": DRAFT, **schema, "title": "fedscan study", "description": summary(Study)}


def schema_text() -> str:
    """The schema as it is published."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


def _choice(registry: Registry, definitions: dict[str, Any]) -> dict[str, Any]:
    """A name alone, or a mapping of the name and its options."""
    entries = []
    alone = []
    for name in registry.names():
        options = registry.options(name)
        entry = options.model_json_schema()
        for word, definition in entry.pop("$defs", {}).items():
            definitions.setdefault(word, definition)
        target = registry.get(name)
        for option, text in descriptions(target).items():
            if option in entry.get("properties", {}):
                entry["properties"][option].setdefault("description", text)
        if not entry.get("required"):
            alone.append(name)
        entry["title"] = f"{registry.kind} {name}"
        entry["description"] = summary(target)
        entry["properties"] = {"name": {"const": name}, **entry.get("properties", {})}
        entry["required"] = ["name", *entry.get("required", [])]
        entries.append(entry)
    return {"anyOf": [{"enum": alone}, *entries]}


def _term(loss: dict[str, Any]) -> dict[str, Any]:
    """A loss within a sum: any but a sum, with its weight."""
    alone, *entries = loss["anyOf"]
    single = [e for e in entries if e["properties"]["name"]["const"] != "sum"]
    weight = {"type": "number", "exclusiveMinimum": 0, "maximum": 1000, "default": 1}
    return {
        "title": "Term",
        "anyOf": [
            {"enum": [name for name in alone["enum"] if name != "sum"]},
            *({**e, "properties": {**e["properties"], "weight": weight}} for e in single),
        ],
    }


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put the docstring's words where an editor shows them: at the keys."""
    schema["description"] = summary(model)
    for name, text in descriptions(model).items():
        schema["properties"][name]["description"] = text
