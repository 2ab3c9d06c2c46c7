"""The result of a run at a site: kept once, whole, and never with weights that are none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from client.models import home_models, models_folder
from client.own_choice import choice_folder
from client.site import SiteConfig
from client.work.homecoming import bring_home
from client.work.tasks import Offer
from common.bundle import read_bundle
from common.chain import Accepted, KnownRuns
from common.errors import WireError
from common.figures import Figures
from common.manifests import Counted, RoundManifest, arrays_sha256
from common.nets import build_net
from common.study import Study
from common.wire import Flat, Schema, Task

STUDY = Study.model_validate(
    {"name": "s", "data": {"labels": ["a"], "dimensions": 2}, "plan": {"patch": [16, 16]},
     "training": {"steps": 1}, "net": {"name": "unet", "width": 2, "levels": 2}, "rounds": {"number": 3}}
)  # fmt: skip
FIGURES = Figures(round=2, rounds=3, sites=2, cases=9)


def weights() -> Flat:
    torch.manual_seed(1)
    return Schema.of(STUDY).pack(build_net(STUDY).state_dict())


def offer(flat: Flat, **limits: Any) -> Offer:
    manifest = RoundManifest(
        run="run-1", study=STUDY.digest(), sequence=9, previous="0" * 64, round=2, kind="result",
        base=arrays_sha256(flat), roster={"oslo": Counted(round=3)}, figures=FIGURES,
    )  # fmt: skip
    accepted = Accepted(STUDY, None, manifest, False, KnownRuns())  # type: ignore[arg-type]
    config = SiteConfig.model_validate({"name": "oslo", "data": ".", "limits": limits})
    task = Task(run="run-1", round=2, kind="result", acknowledged=3)
    return Offer(accepted, config, None, Schema.of(STUDY), task)  # type: ignore[arg-type]


def raw(flat: Flat) -> dict[str, bytes]:
    return {dtype: values.tobytes() for dtype, values in flat.items()}


def test_the_same_result_twice_is_one_model(tmp_path: Path) -> None:
    for _ in range(2):
        arrays = raw(weights())
        outcome = bring_home(tmp_path, offer(weights()), arrays)
        assert (outcome.metrics, dict(outcome.arrays), outcome.error) == ({"stored": 1.0}, {}, None)
        assert not arrays
    (found,), damaged = home_models(tmp_path)
    assert not damaged
    bundle = read_bundle(found.folder)
    assert (bundle.card.run, bundle.card.figures) == ("run-1", FIGURES)
    assert {k: v.tobytes() for k, v in bundle.flat().items()} == raw(weights())


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_weights_that_are_none_are_not_kept(tmp_path: Path, value: float) -> None:
    flat = weights()
    flat["float32"][7] = value
    with pytest.raises(WireError, match=r"limits\.norm"):
        bring_home(tmp_path, offer(flat), raw(flat))
    assert not models_folder(tmp_path).exists()


def test_the_site_s_own_limit_holds(tmp_path: Path) -> None:
    one = offer(weights(), norm=0.01)
    with pytest.raises(WireError, match=r"allows 0\.01"):
        bring_home(tmp_path, one, raw(weights()))
    assert bring_home(tmp_path, replace(one, config=offer(weights()).config), raw(weights())).error is None


def test_the_model_that_the_site_chose_comes_beside_the_global_one(tmp_path: Path) -> None:
    torch.manual_seed(2)
    chosen = build_net(STUDY).state_dict()
    path = choice_folder(tmp_path / "trainer" / "runs", "run-1") / "chosen.safetensors"
    path.parent.mkdir(parents=True)
    save_file(chosen, path, metadata={"candidate": "finetuned"})
    for _ in range(2):
        assert bring_home(tmp_path, offer(weights()), raw(weights())).error is None
    models, damaged = home_models(tmp_path)
    assert not damaged
    by_kind = {m.card.own: read_bundle(m.folder) for m in models}
    assert by_kind.keys() == {None, "finetuned"}
    assert {k: v.tobytes() for k, v in by_kind[None].flat().items()} == raw(weights())
    assert all(torch.equal(v, chosen[k]) for k, v in by_kind["finetuned"].net().state_dict().items())
