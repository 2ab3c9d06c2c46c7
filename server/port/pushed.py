"""A large object is taken out of the request that brings it where it lies: protobuf's own parser would copy it twice.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from server.port.inbox import Refused

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups are of an old form that nobody sends


def take_field(body: memoryview, number: int) -> tuple[bytes, memoryview]:
    """A message without one of its fields of bytes, and the field.

    Only the outermost fields are told apart here: what is left is for protobuf to read.

    Args:
        body: The message.
        number: The field.

    Raises:
        Refused: It is no protobuf message, or holds the field more than once.
    """
    rest: list[memoryview] = []
    found: memoryview | None = None
    at = 0
    while at < len(body):
        start = at
        tag, at = _varint(body, at)
        if tag & 7 == _BYTES:
            length, at = _varint(body, at)
        elif tag & 7 == _VARINT:
            _, end = _varint(body, at)
            length = end - at
        elif tag & 7 in (_FIXED32, _FIXED64):
            length = 4 if tag & 7 == _FIXED32 else 8
        else:
            raise _not_protobuf()
        if length > len(body) - at:
            raise _not_protobuf()
        if tag == number << 3 | _BYTES:
            if found is not None:
                raise Refused(400, "one object at a time")
            found = body[at : at + length]
        else:
            rest.append(body[start : at + length])
        at += length
    return b"".join(rest), body[:0] if found is None else found


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            break
        value |= (body[at] & 0x7F) << shift
        at += 1
        if body[at - 1] < 0x80:
            return value, at
    raise _not_protobuf()


def _not_protobuf() -> Refused:
    return Refused(400, "the body is not protobuf")


def field_front(number: int, length: int) -> bytes:
    """What stands before the `length` bytes of a field of bytes."""
    out = bytearray([number << 3 | _BYTES])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)
