"""The strategies' page is what the code says, and the command names all of them."""

import json
from pathlib import Path

from click.testing import CliRunner

from common.cards import StrategyCard, card_of
from common.cli import command
from common.names import STRATEGIES
from server.strategies_page import page_text

PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"


def answer(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page_text(), "renew it with `fedscan strategies page > docs/strategies.md`"


def test_list_and_show() -> None:
    assert [one["name"] for one in json.loads(answer("strategies", "list", "--json"))] == STRATEGIES.names()
    text = answer("strategies", "show", "fedavgm")
    assert "Hsu" in text
    assert "kept at the server: v, one model" in text
    assert "momentum: 0.5  (number ≥ 0 < 1)" in text


def test_every_card_has_an_equation() -> None:
    cards = [card_of(STRATEGIES.get(name)) for name in STRATEGIES.names()]
    assert all(isinstance(card, StrategyCard) and card.equation for card in cards)
