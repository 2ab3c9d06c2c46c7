"""The ablation's cells, on phantoms: one run is scored in every way, each as its name says."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.documents import Document
from common.study import Study, study_of
from simulations.arms import Arm
from simulations.baselines import best_model
from simulations.benchmarks import ablation
from simulations.benchmarks.ablation import ADAMW, ROWS, SGD, Plan, Row, measure, table
from simulations.benchmarks.ablation_cells import BATCHES, Cell, measured_anew, nets, score, train
from simulations.config import simulated_sites
from simulations.sites import Field

STUDY = """
name: ablation
data: {labels: [liver, kidneys], dimensions: 2}
plan: {size: [32, 32], patch: [32, 32]}
training: {steps: 1, precision: fp32}
sites: {make: phantom, number: 2, cases: 6}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two phantom hospitals, and rows of four updates at rates that are felt."""
    out = tmp_path_factory.mktemp("ablation")
    document = Document(out / "study.yaml", STUDY)
    base = study_of(document)
    plan = Plan(base, out, {"adamw": Row("AdamW", (0.001, 0.05), 2), "sgd": Row("SGD", (1e-6,), 2, SGD)}, [1], 4)
    Field(tuple(simulated_sites(document, base, None, out)), out / "cache", out).write(plan.described)
    return plan


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "NET", {"name": "unet", "width": 4, "levels": 2})


def ran(plan: Plan, folder: str, rounds: int, buffers: str) -> tuple[Cell, Arm, Path]:
    study = Row("", (0.05,), rounds).study(plan.base, 0.05, 1, 4)
    told = study.model_dump(mode="json")
    told["rounds"]["buffers"] = buffers
    cell = Cell(Study.model_validate(told), "fedavg", plan.out / folder)
    train(cell.study.model_dump_json(), cell.method, cell.folder, plan.described)
    (arm,) = cell.arms(cell.field(plan.described).training)
    return cell, arm, cell.folder / "runs" / arm.run


def state(net: nn.Module, kind: str) -> Mapping[str, Tensor]:
    return dict(net.named_parameters() if kind == "parameters" else net.named_buffers())


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_parameters_do_not_depend_on_what_is_done_with_the_statistics(plan: Plan) -> None:
    """After one round the aggregated statistics are those of the product's own `rounds.buffers: aggregate`, too."""
    for rounds in (1, 2):
        local, arm, run = ran(plan, f"local-{rounds}", rounds, "local")
        _, aggregate, other = ran(plan, f"aggregate-{rounds}", rounds, "aggregate")
        sites = local.field(plan.described).open()[:-1]
        ours, theirs = nets(arm, run, sites)["pooled"](sites[0]), best_model(aggregate.study, other)
        assert same(state(ours, "parameters"), state(theirs, "parameters"))
        # Later rounds begin with other running statistics, of which little is left after many updates.
        assert same(state(ours, "buffers"), state(theirs, "buffers")) == (rounds == 1)


def test_the_first_sites_statistics_are_its_own(plan: Plan) -> None:
    cell, arm, run = ran(plan, "whose", 2, "local")
    first, second = cell.field(plan.described).open()[:-1]
    by = nets(arm, run, [first, second])
    assert same(state(by["first"](second), "buffers"), state(by["own"](first), "buffers"))
    assert not same(state(by["first"](second), "buffers"), state(by["own"](second), "buffers"))
    assert same(state(by["first"](second), "parameters"), state(by["own"](second), "parameters"))


def test_statistics_measured_anew_are_those_of_the_batches(plan: Plan) -> None:
    """By hand: what the first convolution, whose input no normalisation changes, gives on the same batches."""
    cell, arm, run = ran(plan, "anew", 2, "local")
    site = cell.field(plan.described).open()[0]
    net = measured_anew(best_model(arm.study, run, site.home), arm.study, site)
    convolution, norm = net.down[0][0], net.down[0][1]
    with torch.no_grad():
        seen = [convolution(image) for image, _ in site.batches(arm.study).prefetch(0, BATCHES)]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0))


@pytest.mark.parametrize("method", ["local", "pooled_t", "pooled_kt"])
def test_a_site_alone_is_scored_in_one_way(plan: Plan, method: str) -> None:
    study = Row("", (0.05,), 2).study(plan.base, 0.05, 1, 4).model_dump_json()
    arguments = (study, method, plan.out / method, plan.described)
    train(*arguments)
    found = score(*arguments)
    assert found.keys() == {"own"}
    assert {site: len(values) for site, values in found["own"].items()} == dict.fromkeys(found["own"], 1)
    assert len(found["own"]) == 2
    assert score(*arguments) == found


def test_rates_are_chosen_by_validation_and_a_row_is_shown(plan: Plan) -> None:
    said: list[str] = []
    found = measure(plan, 1, said.append)
    assert [line.split(":")[0] for line in said] == ["adamw 0.001 1", "adamw 0.05 1", "sgd 1e-06 1"]
    validation = [float(line.split()[-1]) for line in said[:2]]
    assert found["adamw"][0][0] == (0.001, 0.05)[validation.index(max(validation))]
    lines = list(table(plan, found))
    assert len(lines) == 4
    assert lines[3].startswith("| SGD | 1e-06 | 2 × 2 | ")
    assert len(list(plan.out.glob("*/test.json"))) >= 2


def test_the_rows_differ_from_the_published_one_as_they_say(plan: Plan) -> None:
    published = ROWS["published"].study(plan.base, 1e-3, 1, 700)
    assert (published.rounds.number, published.training.steps, published.training.rate) == (7, 100, 1e-3)
    assert (published.training.optimizer, published.training.momentum, published.training.weight_decay) == ("sgd", 0, 0)
    assert ROWS["adamw"].training == ADAMW
    steps = {r.rounds * (r.study(plan.base, 1e-3, 1, 700).training.steps or 0) for r in ROWS.values()}
    assert steps == {700}
