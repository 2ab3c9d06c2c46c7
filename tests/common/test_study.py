import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from common.documents import Document
from common.names import LOSSES, NETS, STRATEGIES
from common.registry import OptionsError, Registry, did_you_mean
from common.section import Choice
from common.seeds import derive, generator
from common.study import Study, study_of

MINIMAL: dict[str, Any] = {
    "name": "tiny",
    "data": {"labels": ["a"]},
    "plan": {"patch": [32, 32, 32]},
    "training": {"steps": 10},
}


def test_the_canonical_form_of_a_study_never_changes_unnoticed() -> None:
    # A new key or another default changes it: every study then has a new digest, which the changelog must say.
    expected = (
        '{"author":"","data":{"bad_cases":"exclude","channels":["image"],"codes":{},"dimensions":3,"ignore":null,"labels":["a"],"modality":null},"description":"",'
        '"evaluation":{"every":1,"metrics":[{"name":"dice"},{"name":"hd95"}],"mirror":false,"overlap":0.5,'
        '"own":null,"scheme":{"method":"sliding"},"seed":1,"spread":"quartiles","test":0.2,'
        '"validation":0.2},"loss":{"background":false,"batch":true,'
        '"ce":1.0,"class_weights":null,"dice":1.0,"name":"dice_ce","smooth":1e-05},"name":"tiny",'
        '"net":{"deep_supervision":true,"name":"dynunet","norm":"instance","size":"medium","strides":null},'
        '"plan":{"intensity":{"method":"zscore","nonzero":false},"patch":[32,32,32],"size":null,"spacing":null},"postprocess":[],'
        '"rounds":{"buffers":"aggregate","deadline":null,"number":20,"quorum":0.5,"weights":"cases"},"seed":1,"start":null,'
        '"strategy":{"name":"fedavg"},"training":{"augment":"default","batch":2,"clip":12.0,"epochs":null,'
        '"foreground":0.34,"freeze":[],"head_weights":null,"momentum":0.99,"optimizer":"adamw","optimizer_state":"keep","precision":"auto",'
        '"rate":0.001,"schedule":"poly","steps":10,"warmup":0,"weight_decay":0.01},"update":{"name":"full"}}'
    )
    study = Study.model_validate(MINIMAL)
    assert study.canonical().decode() == expected
    assert study.digest() == hashlib.sha256(expected.encode()).hexdigest()
    assert study.digest() == "019d2dfcd84fda7c4bb3becec63b21e85c1e248996b61d040bf78a27b3993c15"


def shuffled(value: Any, draw: st.DataObject) -> Any:
    """The same value written in another way: other key order, whole floats as integers or the reverse."""
    if isinstance(value, dict):
        return {k: shuffled(value[k], draw) for k in draw.draw(st.permutations(sorted(value)))}
    if isinstance(value, list):
        return [shuffled(v, draw) for v in value]
    if isinstance(value, float) and value.is_integer() and draw.draw(st.booleans()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and draw.draw(st.booleans()):
        return float(value)
    return value


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(1e-6, 10, allow_nan=False),
    steps=st.integers(1, 1000),
    labels=st.lists(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), min_size=1, max_size=3, unique=True),
    mu=st.sampled_from([0.0, 1.0, 0.5]),
    data=st.data(),
)
def test_equal_studies_have_equal_digests(
    rate: float, steps: int, labels: list[str], mu: float, data: st.DataObject
) -> None:
    written = MINIMAL | {
        "data": {"labels": [name for name in labels if name != "background"] or ["a"]},
        "training": {"steps": steps, "rate": rate},
        "strategy": {"name": "fedprox", "mu": mu},
    }
    study = Study.model_validate(written)
    complete = json.loads(study.canonical())  # every default spelt out
    again = study_of(Document(Path("s.yaml"), yaml.safe_dump(shuffled(complete, data), sort_keys=False)))
    assert again.digest() == study.digest()
    other = Study.model_validate(written | {"training": {"steps": steps + 1, "rate": rate}})
    assert other.digest() != study.digest()


def test_sections_of_a_simulation_stand_outside_the_digest() -> None:
    text = yaml.safe_dump(MINIMAL)
    with_sites = text + "sites: {a: {data: x}}\ncompare: [fedavg]\n"
    assert study_of(Document(Path("s"), text)).digest() == study_of(Document(Path("s"), with_sites)).digest()


def test_a_choice_may_be_a_name_a_flat_mapping_or_made_in_python() -> None:
    made = Choice(name="fedprox", options={"mu": 0.5})
    assert made.options == {"mu": 0.5}
    assert Choice.model_validate({"name": "fedprox", "mu": 0.5}) == made
    assert Choice.model_validate("fedavg") == Choice(name="fedavg")
    assert made.model_dump() == {"name": "fedprox", "mu": 0.5}


@pytest.mark.parametrize(
    ("registry", "name"),
    [(r, n) for r in (NETS, LOSSES, STRATEGIES) for n in r.names()],
    ids=lambda value: str(getattr(value, "kind", value)),
)
def test_every_name_loads_and_its_defaults_are_valid(registry: Registry, name: str) -> None:
    assert callable(registry.get(name))
    assert registry.check(name, registry.check(name, {})) == registry.check(name, {})


def test_options_are_checked_against_the_signature() -> None:
    with pytest.raises(OptionsError, match="mu"):
        STRATEGIES.check("fedprox", {"mu": -1})
    with pytest.raises(OptionsError, match="nu"):
        STRATEGIES.check("fedprox", {"nu": 1})
    assert STRATEGIES.check("fedprox", {"mu": 1}) == {"mu": 1.0}


def test_did_you_mean() -> None:
    assert did_you_mean("dynunett", ["unet", "dynunet"]) == " Did you mean 'dynunet'?"
    assert did_you_mean("xyz", ["unet", "dynunet"]) == ""


def test_seeds_are_the_hash_of_seed_and_names() -> None:
    # Oracle: `printf '1\x1fsplit' | sha256sum`, its first 8 bytes shifted right by one bit.
    first = int("075685c15d870793", 16)
    assert derive(1, "split") == first >> 1
    assert derive(1, "a", "b") != derive(1, "ab")
    assert derive(1, "a") != derive(2, "a")
    assert 0 <= derive(0) < 2**63
    assert generator(1, "split").integers(1 << 30) == generator(1, "split").integers(1 << 30)
