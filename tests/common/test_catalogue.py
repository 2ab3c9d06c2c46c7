"""The catalogue of nets, losses and post-processing steps: complete, true to the code, and on its page."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.catalogue import allowed, architecture, entry
from common.cli import WRONG_USE, command, run
from common.names import LOSSES, NETS, POSTPROCESS, STRATEGIES, UPDATES
from common.nets.unet import UNet
from common.nets_page import page_text

PAGE = Path(__file__).parents[2] / "docs" / "nets.md"
REGISTRIES = (NETS, LOSSES, POSTPROCESS, STRATEGIES, UPDATES)
ENTRIES = [(registry, name) for registry in REGISTRIES for name in registry.names()]


def answer(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=lambda value: str(getattr(value, "kind", value)))
def test_an_entry_says_what_every_option_does_and_takes(registry, name):
    one = entry(registry, name)
    assert one["about"]
    silent = [option["name"] for option in one["options"] if not option["about"] or "see its" in option["allowed"]]
    assert silent == []
    json.dumps(one, allow_nan=False)


def test_list_names_every_net_with_its_parameters_and_megabytes():
    nets = {one["name"]: one for one in json.loads(answer("nets", "list", "--json"))}
    assert list(nets) == NETS.names()
    sizes = nets["unet"]["sizes"]["2D"]
    # Ronneberger's 31,030,658 and the scale and shift of 18 normalisations, 2 x 5,888 numbers.
    assert sizes["parameters"] == 31_030_658 + 2 * 5_888
    assert sizes["megabytes_fp32"] == pytest.approx(4 * sizes["parameters"] / 1e6, abs=1e-3)
    text = answer("nets", "list")
    assert all(name in text for name in nets)


def test_show_draws_a_net_as_a_table_whose_parameters_add_up():
    shape, parts = architecture("unet", 2, {"width": 8, "levels": 3})
    assert shape == [2, 1, 256, 256]
    assert [(name, output) for name, _, output, _ in parts][:2] == [
        ("down.0", (2, 8, 256, 256)),
        ("pool", (2, 8, 128, 128)),
    ]
    whole = sum(p.numel() for p in UNet(2, 1, 2, width=8, levels=3).parameters())
    assert sum(parameters for *_, parameters in parts) == whole
    text = answer("nets", "show", "unet")
    assert "31,042,434 parameters" in text
    assert "In a federation" in text
    assert "padding: 'same'  (same | valid)" in text


def test_every_net_can_be_drawn():
    for name in NETS.names():
        one = entry(NETS, name)
        for dimensions in one["dimensions"]:
            shape, parts = architecture(name, dimensions, one["small"])
            assert len(shape) == dimensions + 2
            assert parts, name


def test_losses_and_steps_have_the_same_two_commands():
    assert "dice_ce" in answer("losses", "list")
    assert "Salehi" in answer("losses", "show", "tversky")
    assert "largest_component" in answer("postprocess", "list")
    assert "connectivity" in answer("postprocess", "show", "largest_component")
    assert "topk" in answer("updates", "list")
    assert "bytes per parameter: 1 + 4/block" in answer("updates", "show", "int8")


def test_unknown_name_is_shown_with_a_hint(capsys):
    assert run(["nets", "show", "dynnet"]) == WRONG_USE
    assert "Did you mean 'dynunet'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"enum": ["a", "b"]}, "a | b"),
        ({"type": "integer", "minimum": 2, "maximum": 8}, "whole number ≥ 2 ≤ 8"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}, "number > 0 or none"),
        ({"type": "boolean"}, "true | false"),
    ],
)
def test_rules_in_a_few_words(rule, words):
    assert allowed(rule) == words


def test_page_is_what_the_code_says():
    assert PAGE.read_text() == page_text(), "renew it with `fedscan nets page > docs/nets.md`"
