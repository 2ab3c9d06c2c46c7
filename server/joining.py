"""Who takes part: each site says how many cases it has before a run begins."""

from dataclasses import dataclass

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid
from pydantic import TypeAdapter, ValidationError

from common import wire
from common.errors import RoundError, WireError
from common.section import Name
from common.study import Study
from server.channel import Ask, Plain, Received
from server.exchange import exchange

MOST = 1e9  # of anything that a site counts


@dataclass(frozen=True)
class Member:
    """A site as the coordinator knows it: its node, and the case counts that it gave when it joined."""

    name: str
    node_id: int
    train: int
    validation: int
    test: int
    patients: int
    steps: int


def member(name: str, node_id: int, reply: Received) -> Member:
    """What a site said when it joined; raises WireError."""
    counts = reply.metrics(wire.JOIN_METRIC_KEYS, dict.fromkeys(wire.JOIN_METRIC_KEYS, MOST))
    return Member(name, node_id, **{k: int(v) for k, v in counts.items()})


def join(grid: Grid, study: Study, deadline: float | None = None) -> dict[str, Member]:
    """Ask every node of a simulation who it is and how many cases it has; one that cannot say is left out.

    Raises:
        RoundError: Two nodes say that they are the same site.
    """
    channel, members = Plain(study), dict[str, Member]()
    nodes = {str(n): n for n in grid.get_node_ids()}

    def take(node: str, reply: Message) -> None:
        try:
            record = reply.content.get(wire.TASK) if not reply.has_error() else None
            # The name becomes a file's name.
            name = TypeAdapter(Name).validate_python(record["site"] if isinstance(record, ConfigRecord) else None)
            found = member(name, int(node), channel.received(node, reply))
        except (WireError, KeyError, ValidationError):
            return
        if name in members:
            raise RoundError(f"two nodes say that they are the site {name}; every site needs a name of its own")
        members[name] = found

    exchange(
        grid, channel.messages(Ask("join", 0, "join", nodes, list(nodes), deadline=deadline)), take, lambda: deadline
    )
    return dict(sorted(members.items()))
