"""DNS messages on a stream: each behind its length in two bytes. What is inside is not looked at.

Rules: RFC 1035 section 4.2.2, RFC 7766. A length is what the other side claims: one that no message can have, or that
is over what is taken, ends the stream before a byte of it is kept; a length that is never made good is told at the end.
"""

from __future__ import annotations

from typing import Final

from doorward.wire.errors import ProtocolError

LENGTH_BYTES: Final = 2
HEAD_BYTES: Final = 12  # RFC 1035 section 4.1.1: no message is shorter
MESSAGE_BYTES_MAX: Final = 65_535

BAD_LENGTH: Final = "dns_bad_length"


class MessageReader:
    """Bytes in, messages out, however they were cut. Holds less than one message and its length."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` of one message."""
        self._bytes_max = bytes_max
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises ProtocolError (`dns_bad_length`); use it no more then."""
        self._held += data
        found: list[bytes] = []
        start = 0
        while len(self._held) - start >= LENGTH_BYTES:
            length = int.from_bytes(self._held[start : start + LENGTH_BYTES])
            if not HEAD_BYTES <= length <= self._bytes_max:
                raise ProtocolError(
                    BAD_LENGTH, f"a message of {length} bytes, {HEAD_BYTES} to {self._bytes_max} are possible"
                )
            end = start + LENGTH_BYTES + length
            if len(self._held) < end:
                break
            found.append(bytes(self._held[start + LENGTH_BYTES : end]))
            start = end
        del self._held[:start]
        return found

    def end(self) -> None:
        """The stream is over. Raises ProtocolError (`dns_bad_length`) inside a message."""
        if self._held:
            raise ProtocolError(BAD_LENGTH, f"the stream ended {len(self._held)} bytes into a message")


def framed(message: bytes) -> bytes:
    """A message as it stands on a stream."""
    assert HEAD_BYTES <= len(message) <= MESSAGE_BYTES_MAX
    return len(message).to_bytes(LENGTH_BYTES) + message
