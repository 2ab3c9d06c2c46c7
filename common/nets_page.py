"""docs/nets.md: the nets, losses and post-processing steps as one page, made from the code itself."""

from collections.abc import Iterator
from typing import Any

from common.catalogue import default_of, entry
from common.names import LOSSES, NETS, POSTPROCESS

_HEAD = """\
# Nets, losses and post-processing

Made by `fedscan nets page > docs/nets.md`; a test holds it against the code. The same in a terminal, with each net
drawn as a table: `fedscan nets list`, `fedscan nets show NAME`, and likewise `fedscan losses`, `fedscan postprocess`.

Parameters and megabytes are those of the default options with one label (two classes) and the fewest channels that the
net takes. *MB* is one update in fp32, with buffers; it crosses the line twice per round and site. The receptive field
is in voxels per axis through the convolutions: a dash where the net sees its whole input or the number is not known.
Which of them reproduce a published count, and which could not, is said in each net's own words.
"""


def page_text() -> str:
    """The page as Markdown."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    nets = [entry(NETS, name) for name in NETS.names()]
    yield "## Nets\n"
    yield "| name | net | dimensions | parameters | MB | norm | receptive field | suited for |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in nets:
        yield f"| [`{one['name']}`](#{one['name']}) | {' | '.join(_row(one))} |"
    yield ""
    for one in nets:
        yield from _section(one)
    for title, registry in (("Losses", LOSSES), ("Post-processing", POSTPROCESS)):
        yield f"## {title}\n"
        for name in registry.names():
            yield from _section(entry(registry, name))


def _row(one: dict[str, Any]) -> Iterator[str]:
    sizes = one["sizes"].values()
    yield one["title"]
    yield ", ".join(f"{n}D" for n in one["dimensions"])
    yield " / ".join(f"{size['parameters']:,}" for size in sizes)
    yield " / ".join(f"{size['megabytes_fp32']:,.1f}" for size in sizes)
    yield one["norm"]
    yield str(one["receptive_field"] or "–")
    yield one["suited"]


def _section(one: dict[str, Any]) -> Iterator[str]:
    yield f"### {one['name']}\n"
    yield f"**{one['title']}.** {one['source']}.\n"
    yield f"{one['suited']}\n"
    if "federation" in one:
        yield f"In a federation: {one['federation']}\n"
    if one["options"]:
        yield "| option | default | allowed | |"
        yield "|---|---|---|---|"
        for option in one["options"]:
            cells = (option["name"], default_of(option), option["allowed"], option["about"])
            yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
        yield ""
