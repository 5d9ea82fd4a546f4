"""What is needed of netlink, and no more: messages and attributes as bytes, and a socket that waits for the answers.

Shapes are those of `linux/netlink.h`. Written here and not taken from a library because importing the one there is
costs as much time as a program may lose by being launched (docs/decisions/capture-by-namespace.md).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

REQUEST: Final = 0x1
ACK: Final = 0x4
EXCLUSIVE: Final = 0x200
CREATE: Final = 0x400
APPEND: Final = 0x800

ROUTE: Final = 0
NETFILTER: Final = 12

_ERROR: Final = 2
_NESTED: Final = 0x8000
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NUMBER: Final = struct.Struct("=i")
_ALIGNMENT: Final = 4
# The kernel answers in the call itself; this is for a kernel that does not answer at all.
TIMEOUT_S: Final = 5.0
# Larger than any answer to what is asked here.
_ANSWER_BYTES_MAX: Final = 65_536


class Message(NamedTuple):
    """One request. `says` is what it is for, in words for whoever is told that it was refused."""

    kind: int
    flags: int
    body: bytes
    says: str


class NetlinkRefused(Exception):
    """The kernel says no to a message. The text says to which, and why; `number` is the errno."""

    def __init__(self, says: str, number: int) -> None:
        self.number = number
        super().__init__(f"{says}: {os.strerror(number)}")


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % _ALIGNMENT)


def nested(kind: int, *attributes: bytes) -> bytes:
    """One attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """One attribute that holds a string."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """One attribute that holds a number in network order, as netfilter writes them."""
    return attribute(kind, struct.pack(">I", value))


def pack(message: Message, sequence: int) -> bytes:
    """A message as it goes to the kernel."""
    size = _HEADER.size + len(message.body)
    return _HEADER.pack(size, message.kind, message.flags | REQUEST, sequence, 0) + message.body


class Netlink:
    """A netlink socket of this process's network namespace; a context manager."""

    def __init__(self, protocol: int) -> None:
        """Raises OSError where the kernel has no such protocol."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, messages: Sequence[Message]) -> None:
        """Send all at once and wait until each that asks for it is acknowledged.

        Raises NetlinkRefused for the first that is refused, OSError (a timeout too).
        """
        asked = dict(enumerate(messages, 1))
        self._socket.send(b"".join(pack(message, sequence) for sequence, message in asked.items()))
        waiting = {sequence for sequence, message in asked.items() if message.flags & ACK}
        while waiting:
            for sequence, number in _answers(self._socket.recv(_ANSWER_BYTES_MAX)):
                if number:
                    message = asked.get(sequence)
                    raise NetlinkRefused(message.says if message is not None else "netlink", number)
                waiting.discard(sequence)


def _answers(data: bytes) -> list[tuple[int, int]]:
    """Sequence number and errno (0 for success) of each acknowledgement. Raises OSError for what is none."""
    found: list[tuple[int, int]] = []
    while data:
        if len(data) < _HEADER.size:
            raise OSError(errno.EPROTO, "half a netlink message")
        size, kind, _, sequence, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= size <= len(data):
            raise OSError(errno.EPROTO, "a netlink message of a wrong length")
        if kind == _ERROR and size >= _HEADER.size + _NUMBER.size:
            found.append((sequence, -_NUMBER.unpack_from(data, _HEADER.size)[0]))
        data = data[size + -size % _ALIGNMENT :]
    return found
