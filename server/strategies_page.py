"""docs/strategies.md: the strategies as one page, made from the code itself."""

from collections.abc import Iterator
from typing import Any

from common.catalogue import default_of, entry
from common.names import STRATEGIES

_HEAD = """\
# Strategies

Made by `fedscan strategies page > docs/strategies.md`; a test holds it against the code. The same in a terminal:
`fedscan strategies list`, `fedscan strategies show NAME`. A study names one under `strategy:`, alone or with options
(`{name: fedavgm, momentum: 0.9}`); a simulation compares several (`compare:`).

In the equations w are the global weights, w_k those of site k after its training, n_k its weight (`rounds.weights`), K
the number of sites, Δ the weighted mean of all w_k − w. Every strategy reads the sites' updates slice by slice from the
disk, so that the coordinator needs the memory of a few models however many sites there are (`flower` excepted), and
what it keeps from round to round is written with the weights of the round: a run that is killed ends with the same
bits. NaN and infinite values never come as far as a strategy: such an update is refused on arrival.

## Which one holds

![Mean and worst site's Dice of eleven strategies, one thing wrong at a time](dials.png)

Small phantoms, five sites, one thing wrong at a time; how it was measured, and the table: [dials.md](dials.md). On real
scans, nothing wrong: [strategies-measured.md](strategies-measured.md).

- **One site that sends its update × −10, × 10 or × 100** ruins all that average: FedAvg falls from 0.74 to 0.11, 0.41
  and 0.00, SCAFFOLD's weights are in the end refused by the sites. Median, trimmed mean, Multi-Krum, geometric median
  and norm clipping stay within 0.01 of what they reach without it. They cost nothing here when all is well.
- **A sign turned round and no more** (× −1) by one of five harms nobody: the mean only makes shorter steps.
- **NaN** is refused on arrival: to the last digit the figures are those of a site that never answers. A site that is
  **away**, for half of the rounds or all, costs at most 0.01.
- **Unlike contrast** is not what robust strategies are for: FedBN alone keeps its worst site above 0.4.
- **An organ that is rare at some sites** costs every strategy about as much; **labels that one site of five exchanges**
  are outvoted.

FedAvgM is the exception to the last three: its momentum has not settled in so few rounds, dial or none.
"""


def page_text() -> str:
    """The page as Markdown."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    entries = [entry(STRATEGIES, name) for name in STRATEGIES.names()]
    yield "| name | strategy | kept at the server | kept at a site | crosses besides the weights | suited for |"
    yield "|---|---|---|---|---|---|"
    for one in entries:
        cells = (one["title"], one["server"], one["site"], one["sent"], one["suited"])
        yield f"| [`{one['name']}`](#{one['name']}) | " + " | ".join(map(_cell, cells)) + " |"
    yield ""
    for one in entries:
        yield from _section(one)


def _section(one: dict[str, Any]) -> Iterator[str]:
    yield f"## {one['name']}\n"
    yield f"**{one['title']}.** {one['source']}.\n"
    yield f"Suited for {one['suited']}.\n"
    yield f"{one['about']}\n"
    if one["options"]:
        yield "| option | default | allowed | |"
        yield "|---|---|---|---|"
        for option in one["options"]:
            cells = (option["name"], default_of(option), option["allowed"], option["about"])
            yield "| " + " | ".join(map(_cell, cells)) + " |"
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
