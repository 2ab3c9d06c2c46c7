"""An object is taken out of its request as protobuf itself would take it. Oracle: protobuf's own parser."""

import pytest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from server.port.inbox import Refused
from server.port.pushed import field_front, take_field

CONTENT = PushObjectRequest.OBJECT_CONTENT_FIELD_NUMBER


def request(content: bytes) -> PushObjectRequest:
    return PushObjectRequest(
        node=Node(node_id=2**63), run_id=7, object_id="0" * 64, object_content=content, session_id="a.b"
    )


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_object_and_rest_are_what_protobuf_finds(size: int) -> None:
    whole = request(b"x" * size)
    body = memoryview(whole.SerializeToString())
    rest, content = take_field(body, CONTENT)
    assert bytes(content) == whole.object_content
    assert size == 0 or content.obj is body.obj  # no copy
    left = PushObjectRequest.FromString(rest)
    assert left.object_content == b""
    whole.ClearField("object_content")
    assert left == whole
    assert PushObjectRequest.FromString(field_front(CONTENT, size) + b"x" * size).object_content == b"x" * size


@given(st.binary(max_size=60) | st.builds(lambda a, b: a + request(b).SerializeToString(), st.binary(), st.binary()))
def test_nothing_is_taken_that_protobuf_would_not_take(body: bytes) -> None:
    try:
        rest, content = take_field(memoryview(body), CONTENT)
        got = PushObjectRequest.FromString(rest)
    except (Refused, DecodeError):
        return
    whole = PushObjectRequest.FromString(body)
    assert whole.object_content == bytes(content)
    whole.ClearField("object_content")
    assert got == whole


@pytest.mark.parametrize(
    "body",
    [b"\x22", b"\x22\x05abc", b"\xff" * 99, b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b" * 50, b"\x09abc",
     b"\x22\x01a\x22\x01b"],
)  # fmt: skip
def test_what_is_cut_off_odd_or_there_twice_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        take_field(memoryview(body), CONTENT)
