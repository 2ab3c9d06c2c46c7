"""Messages and records in Flower's form, as the objects that cross."""

import common.quiet  # noqa: F401

from contextlib import suppress
from dataclasses import dataclass

from flwr.app import ConfigRecord, MetricRecord
from flwr.proto.error_pb2 import Error
from flwr.proto.message_pb2 import Message, Metadata
from google.protobuf.message import DecodeError

from client.network.objects import Thing, name_of
from common.errors import ERROR_CODES, FedscanError, WireError


@dataclass(frozen=True)
class Offer:
    """A task that waits at the coordinator.

    Attributes:
        message_id: Flower's name for this message, which dies with the coordinator's process.
        content: Name of its content: the same whenever the same task is sent.
        metadata: What a reply has to repeat.
    """

    message_id: str
    content: str
    metadata: Metadata


def reply_metadata(offer: Offer, node: int) -> Metadata:
    """What a reply says of itself: the same whenever it is sent, so that a broken upload goes on where it stopped."""
    asked = offer.metadata
    return Metadata(
        run_id=asked.run_id, src_node_id=node, dst_node_id=asked.src_node_id, reply_to_message_id=offer.message_id,
        group_id=asked.group_id, ttl=asked.ttl, message_type=asked.message_type, created_at=asked.created_at,
        dst_task_id=asked.src_task_id,
    )  # fmt: skip


def reply_thing(offer: Offer, node: int, content: Thing) -> Thing:
    """The outermost object of a reply with this content."""
    body = Message(metadata=reply_metadata(offer, node)).SerializeToString(deterministic=True)
    return Thing("Message", (name_of(content.content()),), body)


def error_thing(offer: Offer, node: int, code: str) -> Thing:
    """The outermost object of an answer that is an error's code."""
    known = code if code in ERROR_CODES else FedscanError.code
    error = Error(code=ERROR_CODES.index(known) + 1, reason=known)
    body = Message(metadata=reply_metadata(offer, node), error=error).SerializeToString(deterministic=True)
    return Thing("Message", (), body)


def config_thing(values: dict[str, bytes]) -> Thing:
    """A ConfigRecord."""
    return _thing(ConfigRecord(dict(values)).deflate(), "ConfigRecord")


def metrics_thing(values: dict[str, float]) -> Thing:
    """A MetricRecord."""
    return _thing(MetricRecord(dict(values)).deflate(), "MetricRecord")


def _thing(content: bytes, kind: str) -> Thing:
    return Thing(kind, (), content.partition(b"\0")[2])


def read_config(thing: Thing, key: str) -> bytes:
    """The bytes under `key`, which must be all that a ConfigRecord holds; raises WireError."""
    record = None
    with suppress(ValueError, TypeError, KeyError, DecodeError):
        record = ConfigRecord.inflate(thing.content())
    value = record.get(key) if record is not None and set(record) == {key} else None
    if not isinstance(value, bytes):
        raise WireError(f"the task's {key} cannot be read")
    return value
