"""The head of each net is found from its graph; the names below were read off the nets' own files."""

import pytest
import torch

from common.cards import NetCard, card_of
from common.names import NETS
from common.nets import build_net
from common.nets.head import head_modules, head_of
from common.study import Study

# Expected by hand: one output, several under deep supervision, normalisation behind the last convolution, organ heads.
KNOWN = {
    "unet": {"head"},
    "dynunet": {"output_block.conv.conv", *(f"deep_supervision_heads.{i}.conv.conv" for i in range(3))},
    "segresnet": {"conv_final.2.conv"},
    "highresnet": {"blocks.11.conv", "blocks.11.adn.N"},
    "organ_heads": {"heads.0", "heads.1"},
    "cru_net": {"net.head", "crf"},
}


def study_of(net: str) -> Study:
    card = card_of(NETS.get(net))
    assert isinstance(card, NetCard)
    n = min(card.dimensions)
    return Study.model_validate(
        {
            "name": "s",
            "data": {
                "labels": ["a", "b"],
                "channels": [f"c{i}" for i in range(card.channels)],
                "dimensions": n,
            },
            "plan": {"patch": [64] * n},
            "net": {"name": net, **card.small},
            "training": {"steps": 1},
        }
    )


@pytest.mark.parametrize("net", KNOWN)
def test_the_head_is_what_one_reads_in_the_net(net: str) -> None:
    assert {name.rpartition(".")[0] for name in head_of(study_of(net))} == KNOWN[net]


@pytest.mark.parametrize("net", NETS.names())
def test_every_net_has_a_head_that_makes_its_classes(net: str) -> None:
    """Small beside the body, and of every output one weight."""
    study = study_of(net)
    with torch.device("meta"):
        built = build_net(study)
    sizes = {name: p.numel() for name, p in built.named_parameters()}
    head = head_of(study)
    assert head
    assert 0 < sum(sizes[n] for n in head) < 0.2 * sum(sizes.values())
    assert all(isinstance(m, torch.nn.Module) for m in head_modules(built, study))


def test_looking_for_the_head_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    head_of(study_of("vnet"))
    assert torch.equal(before, torch.get_rng_state())
