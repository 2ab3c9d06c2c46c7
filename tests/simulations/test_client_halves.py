"""Strategies with a half at the site, on quadratic losses with plain SGD, against the papers' algorithms by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client.corrections import HeadFirst
from client.second_nets import Contrast
from client.training import Span, make_optimizer, train
from common.study_training import Training
from tests.simulations.quadratic import Bowl, Federation

A = {"one": np.array([1.0, 2.0]), "two": np.array([3.0, 0.5])}
B = {"one": np.array([1.0, -1.0]), "two": np.array([-1.0, 4.0])}
EQUAL, UNEQUAL = {"one": 1.0, "two": 1.0}, {"one": 3.0, "two": 1.0}


def federation(folder: Path, weights: dict[str, float], name: str, **options: float) -> Federation:
    bowls = {k: Bowl(A[k].tolist(), B[k].tolist()) for k in A}
    return Federation(folder, bowls, weights, {"name": name, **options})


def gradient(site: str, w: np.ndarray) -> np.ndarray:
    return A[site] * (w - B[site])


def test_scaffold_in_two_rounds_by_hand(tmp_path: Path) -> None:
    """One number: F₁ = (w − 1)²/2, F₂ = 3(w + 1)²/2, η = 0.1, two steps.

    Round 1 without control variates: 0 → 0.1 → 0.19 and 0 → −0.3 → −0.51. So c₁ = (0 − 0.19)/0.2 = −0.95 and
    c₂ = 0.51/0.2 = 2.55, w = −0.16, c = 0.8. Round 2: site 1 adds c − c₁ = 1.75 to each gradient,
    −0.16 → −0.219 → −0.2721; site 2 adds −1.75, −0.16 → −0.237 → −0.2909. c₁⁺ = −0.95 − 0.8 + 0.1121/0.2 = −1.1895,
    c₂⁺ = 2.55 − 0.8 + 0.1309/0.2 = 2.4045.
    """
    made = Federation(tmp_path, {"one": Bowl([1.0], [1.0]), "two": Bowl([3.0], [-1.0])}, EQUAL, {"name": "scaffold"})
    made.round()
    np.testing.assert_allclose(made.flat["float32"], [-0.16, 0.8], rtol=1e-6)
    made.round()
    np.testing.assert_allclose(made.flat["float32"], [(-0.2721 - 0.2909) / 2, (2.4045 - 1.1895) / 2], rtol=1e-6)
    kept = {name: float(k["control.w"]) for name, k in made.kept.items()}
    assert kept == pytest.approx({"one": -1.1895, "two": 2.4045}, rel=1e-6)


@pytest.mark.parametrize(("weights", "rate"), [(EQUAL, 1.0), (UNEQUAL, 0.5)])
def test_scaffold_is_algorithm_1_with_option_ii(tmp_path: Path, weights: dict[str, float], rate: float) -> None:
    """Five rounds, in the fourth of which site two is not heard; weights by the sites' shares."""
    made = federation(tmp_path, weights, "scaffold", rate=rate)
    total = sum(weights.values())
    x, c, own = np.zeros(2), np.zeros(2), {k: np.zeros(2) for k in A}
    for number in range(1, 6):
        heard = ["one"] if number == 4 else ["one", "two"]
        made.round(*(A.keys() - heard))
        moved, changed = np.zeros(2), np.zeros(2)
        for k in heard:
            y = x.copy()
            for _ in range(2):
                y = y - 0.1 * (gradient(k, y) - own[k] + c)
            new = own[k] - c + (x - y) / (2 * 0.1)
            moved += weights[k] / sum(weights[j] for j in heard) * (y - x)
            changed += weights[k] / total * (new - own[k])
            own[k] = new
        x, c = x + rate * moved, c + changed
        np.testing.assert_allclose(made.w, x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made.flat["float32"][2:], c, rtol=1e-5, atol=1e-6)
    mean = sum(weights[k] * made.kept[k]["control.w"].numpy() for k in A) / total
    np.testing.assert_allclose(mean, c, rtol=1e-5, atol=1e-6)


def test_scaffold_comes_to_the_optimum_where_fedavg_does_not(tmp_path: Path) -> None:
    """Σ a (w − b) = 0 has the closed form Σ a b / Σ a; ten local steps pull FedAvg away from it."""
    bowls = {k: Bowl(A[k].tolist(), B[k].tolist()) for k in A}
    best = sum(A[k] * B[k] for k in A) / sum(A.values())
    found = {}
    for name in ("fedavg", "scaffold"):
        made = Federation(tmp_path / name, bowls, EQUAL, {"name": name}, steps=10)
        for _ in range(60):
            made.round()
        found[name] = np.abs(made.w - best).max()
    assert found["scaffold"] < 1e-4
    assert found["fedavg"] > 0.1


def test_scaffolds_control_is_a_mean_gradient_with_momentum_too(tmp_path: Path) -> None:
    """At the sites' own optima nothing moves; far from them c stays within the gradients that were met."""
    bowls = {k: Bowl(A[k].tolist(), B[k].tolist()) for k in A}
    made = Federation(tmp_path, bowls, EQUAL, {"name": "scaffold"}, momentum=0.9, steps=5)
    made.round()
    for k in A:
        steepest = np.abs(gradient(k, np.zeros(2)))
        assert (np.abs(made.kept[k]["control.w"].numpy()) <= steepest + 1e-6).all()


@pytest.mark.parametrize("weights", [EQUAL, UNEQUAL])
def test_feddyn_is_algorithm_1(tmp_path: Path, weights: dict[str, float]) -> None:
    """Five rounds, in the fourth of which site two is not heard."""
    alpha, total = 0.5, sum(weights.values())
    made = federation(tmp_path, weights, "feddyn", alpha=alpha)
    x, h, own = np.zeros(2), np.zeros(2), {k: np.zeros(2) for k in A}
    for number in range(1, 6):
        heard = ["one"] if number == 4 else ["one", "two"]
        made.round(*(A.keys() - heard))
        ended = {}
        for k in heard:
            y = x.copy()
            for _ in range(2):
                y = y - 0.1 * (gradient(k, y) - own[k] + alpha * (y - x))
            own[k] = own[k] - alpha * (y - x)
            ended[k] = y
        h = h - alpha * sum(weights[k] / total * (ended[k] - x) for k in heard)
        x = sum(weights[k] * ended[k] for k in heard) / sum(weights[k] for k in heard) - h / alpha
        np.testing.assert_allclose(made.w, x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made.memory["h"]["float32"], h, rtol=1e-5, atol=1e-6)


def test_feddyn_in_two_rounds_by_hand(tmp_path: Path) -> None:
    """F₁ = (w − 1)²/2, F₂ = 3(w + 1)²/2, η = 0.1, one step, α = 1.

    Round 1: 0 → 0.1 and 0 → −0.3, h₁ = −0.1, h₂ = 0.3, h = 0.1, w = −0.1 − 0.1 = −0.2. Round 2: site 1 has the
    gradient −1.2 + 0.1, −0.2 → −0.09; site 2 has 2.4 − 0.3, −0.2 → −0.41. h = 0.1 + 0.05 = 0.15, w = −0.25 − 0.15.
    """
    bowls = {"one": Bowl([1.0], [1.0]), "two": Bowl([3.0], [-1.0])}
    made = Federation(tmp_path, bowls, EQUAL, {"name": "feddyn", "alpha": 1.0}, steps=1)
    made.round()
    np.testing.assert_allclose(made.w, [-0.2], rtol=1e-6)
    made.round()
    np.testing.assert_allclose(made.w, [-0.4], rtol=1e-6)
    assert float(made.kept["two"]["dynamic.w"]) == pytest.approx(0.3 + 0.21)


def test_dittos_personal_model_by_hand_and_its_global_one_is_fedavg(tmp_path: Path) -> None:
    """v ← v − η (F′(v) + λ (v − w)), w the weights that came; v begins where w did."""
    made, average = federation(tmp_path / "d", EQUAL, "ditto", pull=0.7), federation(tmp_path / "a", EQUAL, "fedavg")
    v = {k: np.zeros(2) for k in A}
    for number in range(1, 5):
        w, lost = made.w.copy(), {"two"} if number == 3 else set()
        made.round(*lost)
        average.round(*lost)
        for k in A.keys() - lost:
            for _ in range(2):
                v[k] = v[k] - 0.1 * (gradient(k, v[k]) + 0.7 * (v[k] - w))
        np.testing.assert_array_equal(made.w, average.w)
        for k in A:
            np.testing.assert_allclose(made.kept[k]["personal.net.w"].numpy(), v[k], rtol=1e-5, atol=1e-6)


class Features(nn.Module):
    """A convolution, and a head on it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.body(image)))
        return out


PLAIN = Training(optimizer="sgd", rate=0.1, momentum=0.0, weight_decay=0.0, schedule="constant", steps=1, clip=None)


def test_moons_step_is_that_of_its_definition() -> None:
    """Equation 3, written out with exponentials and differentiated by autograd."""
    torch.manual_seed(1)
    net, previous = Features(), Features()
    image, label = torch.randn(4, 1, 8, 8), torch.randint(0, 2, (4, 8, 8))
    reference = Features()
    reference.load_state_dict(net.state_dict())
    frozen = Features()
    frozen.load_state_dict(net.state_dict())

    def z(of: Features) -> torch.Tensor:
        return torch.tanh(of.body(image)).mean(dim=(2, 3))

    near = torch.exp(F.cosine_similarity(z(reference), z(frozen).detach()) / 0.5)
    far = torch.exp(F.cosine_similarity(z(reference), z(previous).detach()) / 0.5)
    loss = F.cross_entropy(reference(image), label) + 3.0 * -torch.log(near / (near + far)).mean()
    loss.backward()
    wanted = {n: p.detach() - 0.1 * p.grad for n, p in reference.named_parameters() if p.grad is not None}

    kept = {f"previous.{n}": t for n, t in previous.state_dict().items()}
    extra = Contrast(3.0, 0.5, lambda of: [of.get_submodule("head")], PLAIN, kept)
    found = train(net, nn.CrossEntropyLoss(), make_optimizer(net, PLAIN), [(image, label)], PLAIN, Span(0, 1, 1), extra)
    assert found == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[name])
    assert all(torch.equal(extra.keep()[f"previous.{n}"], t) for n, t in net.state_dict().items())
    assert not net.head._forward_pre_hooks, "the net is used again"


def test_moon_adds_nothing_before_there_is_a_previous_net() -> None:
    torch.manual_seed(1)
    net, plain = Features(), Features()
    plain.load_state_dict(net.state_dict())
    batch = [(torch.randn(4, 1, 8, 8), torch.randint(0, 2, (4, 8, 8)))]
    extra = Contrast(3.0, 0.5, lambda of: [of.get_submodule("head")], PLAIN, {})
    train(net, nn.CrossEntropyLoss(), make_optimizer(net, PLAIN), batch, PLAIN, Span(0, 1, 1), extra)
    train(plain, nn.CrossEntropyLoss(), make_optimizer(plain, PLAIN), batch, PLAIN, Span(0, 1, 1))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), plain.state_dict().values(), strict=True))


def test_fedreps_round_trains_the_head_and_then_the_body() -> None:
    """Six steps of the second round, a third of them the head's."""
    torch.manual_seed(1)
    net = Features()
    batch, moved = (torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 8, 8))), []
    before = {n: p.detach().clone() for n, p in net.named_parameters()}

    def look() -> None:
        moved.append({n.split(".")[0] for n, p in net.named_parameters() if not torch.equal(p.detach(), before[n])})
        before.update({n: p.detach().clone() for n, p in net.named_parameters()})

    settings = PLAIN.model_copy(update={"optimizer": "adamw", "weight_decay": 0.1})
    extra = HeadFirst(1 / 3, ["head.weight", "head.bias"])
    train(net, nn.CrossEntropyLoss(), make_optimizer(net, settings), [batch] * 6, settings, Span(6, 6, 12), extra, look)
    assert moved == [{"head"}] * 2 + [{"body"}] * 4


@pytest.mark.parametrize(("share", "count", "expected"), [
    (0.04, 10, ["head"] + ["body"] * 9), (0.96, 10, ["head"] * 9 + ["body"]), (0.5, 1, ["both"]),
])  # fmt: skip
def test_neither_head_nor_body_is_left_out_by_rounding(share: float, count: int, expected: list[str]) -> None:
    net = Features()
    batch, moved = (torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 8, 8))), []
    before = {n: p.detach().clone() for n, p in net.named_parameters()}

    def look() -> None:
        parts = {n.split(".")[0] for n, p in net.named_parameters() if not torch.equal(p.detach(), before[n])}
        moved.append("both" if len(parts) > 1 else "".join(parts))
        before.update({n: p.detach().clone() for n, p in net.named_parameters()})

    settings = PLAIN.model_copy(update={"optimizer": "adamw", "weight_decay": 0.1})
    extra = HeadFirst(share, ["head.weight", "head.bias"])
    span = Span(0, count, count)
    train(net, nn.CrossEntropyLoss(), make_optimizer(net, settings), [batch] * count, settings, span, extra, look)
    assert moved == expected
