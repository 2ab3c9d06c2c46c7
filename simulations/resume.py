"""What a simulation checks before it goes on with what an earlier process left."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client.data.volume import SiteData
from common.disk import write_whole
from common.errors import StudyError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second process out of `folder`; the system frees it when this one ends, however that happens.

    Raises:
        StudyError: Another process works in it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StudyError(f"{folder}: this simulation is running in another process") from None
        yield


def same_cases(path: Path, data: Mapping[str, SiteData]) -> None:
    """Note in `path` which cases each site has, or check that they are still those that are noted there.

    A simulation that went on with other sites, scans, labels or another split would mix two simulations.

    Raises:
        StudyError: They are not.
    """
    # A list, because the order of the sites is the order in which their updates are added up.
    now: list[Any] = [
        [name, {part: [[c.id, c.content] for c in getattr(d, part)] for part in ("train", "validation", "test")}]
        for name, d in data.items()
    ]
    if not path.exists():
        write_whole(path, lambda part: part.write_text(json.dumps(now), encoding="utf-8"))
        return
    then = json.loads(path.read_text(encoding="utf-8"))
    if then == now:
        return
    changed = [name for name, cases in now if [name, cases] not in then]
    gone = [name for name, _ in then if name not in data]
    raise StudyError(
        f"nothing to resume: the sites or their scans are not those that the simulation in {path.parent} began with "
        f"({', '.join([*changed, *gone]) or 'their order'}). Undo the change, or start anew without --resume"
    )


def spent(folder: Path) -> float:
    """Seconds that earlier processes spent on the runs in `folder`, up to their last checkpoints."""
    states = folder.glob("seed-*/runs/*/checkpoints/state.json")
    return sum(float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) for path in states)
