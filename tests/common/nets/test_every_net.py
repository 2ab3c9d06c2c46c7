"""What holds for every net of the registry, at its small size."""

from typing import Any

import pytest
import torch

from common.cards import NetCard, card_of
from common.names import NETS
from common.nets import build_net, divisor
from common.study import Study
from common.wire import Schema

SIZE = (32, 32, 32)


def card(name: str) -> NetCard:
    found = card_of(NETS.get(name))
    assert isinstance(found, NetCard)
    return found


CASES = [(name, dimensions) for name in NETS.names() for dimensions in card(name).dimensions]
every_net = pytest.mark.parametrize(("name", "dimensions"), CASES)


def study(name: str, dimensions: int, **options: Any) -> Study:
    channels = [f"c{i}" for i in range(max(2, card(name).channels))]
    return Study.model_validate(
        {
            "name": "s",
            "data": {"labels": ["a", "b"], "channels": channels, "dimensions": dimensions},
            "plan": {"patch": SIZE[:dimensions]},
            "training": {"steps": 1},
            "net": {"name": name, **card(name).small, **options},
        }
    )


def image(of: Study, *size: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, len(of.data.channels), *size)


@pytest.mark.parametrize("name", NETS.names())
def test_card_is_whole(name):
    of = card(name)
    assert all((of.title, of.source, of.suited, of.federation, of.dimensions))
    assert any(word in of.source for word in ("arXiv", "doi", "PMC")), "the source needs a number that can be looked up"


@every_net
def test_it_learns_with_every_parameter(name, dimensions):
    torch.manual_seed(0)
    of = study(name, dimensions)
    net = build_net(of)
    outputs = net(image(of, *SIZE[:dimensions], batch=2))
    heads = outputs if isinstance(outputs, list) else [outputs]
    assert heads[0].shape == (2, 3, *SIZE[:dimensions])
    assert all(h.shape[:2] == (2, 3) for h in heads)
    sum(h.square().mean() for h in heads).backward()
    silent = without_gradient(net)
    if silent:
        # What lies before a scale that starts at 0, or in a block that was left out at random, learns a step later.
        torch.optim.SGD(net.parameters(), lr=0.1).step()
        again = net(image(of, *SIZE[:dimensions], batch=2))
        sum(h.square().mean() for h in (again if isinstance(again, list) else [again])).backward()
        silent = without_gradient(net)
    assert silent == []
    weights = getattr(net, "head_weights", None)
    assert weights is None or len(weights) == len(heads)


def without_gradient(net: torch.nn.Module) -> list[str]:
    # A bias before a normalisation is taken out again by it: its gradient is rounding error or 0.
    return [n for n, p in net.named_parameters() if p.grad is None or (p.ndim > 1 and not p.grad.any())]


@every_net
def test_evaluation_gives_one_map_of_logits_and_does_not_depend_on_the_batch(name, dimensions):
    torch.manual_seed(1)
    of = study(name, dimensions)
    net = build_net(of).eval()
    x = image(of, *SIZE[:dimensions], batch=2)
    with torch.inference_mode():
        both = net(x)
        assert isinstance(both, torch.Tensor)
        torch.testing.assert_close(net(x[1:]), both[1:], rtol=1e-4, atol=1e-4)


@every_net
def test_odd_sizes_are_handled_or_refused_with_words(name, dimensions):
    of = study(name, dimensions)
    net = build_net(of).eval()
    fitting = [n * -(-33 // n) for n in divisor(net)]
    with torch.inference_mode():
        assert net(image(of, *fitting)).shape[2:] == tuple(fitting)
        odd = (37, 33, 35)[:dimensions]
        if all(n == 1 for n in divisor(net)) or takes_any_size(net, image(of, *odd)):
            assert net(image(of, *odd)).shape[2:] == odd
        else:
            with pytest.raises(ValueError, match="the net needs sides of"):
                net(image(of, *odd))


def takes_any_size(net: torch.nn.Module, x: torch.Tensor) -> bool:
    try:
        net(x)
    except ValueError:
        return False
    return True


@every_net
def test_same_seed_same_weights_and_output(name, dimensions):
    of = study(name, dimensions)
    x = image(of, *SIZE[:dimensions])
    outputs = []
    for _ in range(2):
        torch.manual_seed(5)
        with torch.inference_mode():
            outputs.append(build_net(of).eval()(x))
    assert torch.equal(*outputs)


@every_net
def test_wire_schema_carries_names_shapes_and_types(name, dimensions):
    of = study(name, dimensions)
    net, again = build_net(of), build_net(of)
    schema = Schema.of(of)
    schema.load(schema.pack(net.state_dict()), again)
    one, other = net.state_dict(), again.state_dict()
    assert list(one) == list(other)
    for key, tensor in one.items():
        assert (tensor.shape, tensor.dtype) == (other[key].shape, other[key].dtype)
        assert torch.equal(tensor, other[key]), key
    assert schema.nbytes == sum(t.numel() * t.element_size() for t in one.values())


@every_net
def test_mixed_precision_gives_finite_logits(name, dimensions):
    of = study(name, dimensions)
    torch.manual_seed(2)
    net = build_net(of).eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(image(of, *SIZE[:dimensions])).isfinite().all()
