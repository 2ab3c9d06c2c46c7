"""Who has the result of a finished run, on disk: runs/NAME/delivery.json."""

from pathlib import Path

from pydantic import AwareDatetime, Field

from common.disk import write_whole
from common.errors import CheckpointError, IdentityError
from common.keys import read_small
from common.records import Record, RecordError, Sha256, read_record
from common.section import Name

FILE = "delivery.json"
MAX_BYTES = 1024 * 1024


class Delivered(Record):
    """One site's part.

    Attributes:
        time: When it said that the result is there; none yet.
        why: Why the last attempt failed, if it did: a code of the site's, or what was wrong with its reply.
    """

    time: AwareDatetime | None = None
    why: str | None = Field(None, max_length=300)


class Delivery(Record):
    """The sites that took part in a run, and whether its result reached them.

    Attributes:
        model: Hash of the model.
        sites: By name.
    """

    model: Sha256
    sites: dict[Name, Delivered] = Field(max_length=1000)

    def due(self) -> list[str]:
        """The sites that do not have it yet."""
        return [name for name, site in self.sites.items() if site.time is None]

    def noted(self, site: str, found: Delivered) -> "Delivery":
        """The same, with what is known of `site` now."""
        return self.model_copy(update={"sites": {**self.sites, site: found}})


def read_delivery(folder: Path) -> Delivery | None:
    """The record of the run in `folder`, none before the first look; raises CheckpointError when it is damaged."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return read_record(Delivery, read_small(path, MAX_BYTES), MAX_BYTES)
    except (RecordError, IdentityError) as error:
        raise CheckpointError(f"{path} {error}; remove it, and every site is offered the result once more") from None


def write_delivery(folder: Path, delivery: Delivery) -> None:
    """Keep it; raises StorageError."""
    text = delivery.canonical() + b"\n"
    write_whole(folder / FILE, lambda part: part.write_bytes(text))
