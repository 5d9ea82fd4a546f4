"""What a launcher and the firewall that its program joins say to each other, in packets of JSON over a Unix socket.

    launcher   {"version": 1, "places": […], "program": …}    with the sockets that catch, and the helper's channel
    firewall   {"ok": true, "settle_s": 30.0}                 or {"ok": false, "why": "…"}, and it is over
    launcher   {"others": false}                              the program has ended
    firewall   {"action": "deny", "host": …, "count": 3}      each thing that was refused
    firewall   {"more": 0}                                    and what there was no room for: the end

The socket is beside the control socket, and as that its owner's alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

VERSION: Final = 1
# The first packet holds a command line; all others are small.
PACKET_BYTES_MAX: Final = 131_072
# Two of TCP, two of UDP, two to refuse with, nameservers on the program's loopback; and the helper's channel.
DESCRIPTORS_MAX: Final = 32
SUFFIX: Final = ".join"
_TEXT_MAX: Final = 4096


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """A program that wants to join. `places` are those of the sockets that come with it, in their order.

    In `program`, `file` and `words` each character is a byte: names of files need not be text.
    """

    version: int
    places: list[str]
    program: str
    file: str
    process: int
    log_command: bool
    words: list[str]

    def is_sound(self) -> bool:
        """Whether the lengths are of this world."""
        texts = [self.program, self.file, *self.places]
        return (
            0 < len(self.places) < DESCRIPTORS_MAX
            and 0 < self.process < 2**31
            and all(len(text) <= _TEXT_MAX for text in texts)
        )


class Joined(msgspec.Struct):
    """Whether it may. `settle_s` is how long what it leaves under way has at its end, at most."""

    ok: bool
    why: str = ""
    settle_s: float = 0.0


class Ended(msgspec.Struct, forbid_unknown_fields=True):
    """The program has. `others`: a process is left in its network."""

    others: bool


class Told(msgspec.Struct):
    """One thing that was refused; see `Refused`."""

    action: str
    transport: str
    host: str
    port: int
    reason: str
    rule: str | None
    is_name: bool
    count: int


class Done(msgspec.Struct):
    """All is told; `more` were not counted apart."""

    more: int


class BadPacket(Exception):
    """What came is not what the other side says. The text is a sentence's end."""


def join_path(control: Path) -> Path:
    """Where the firewall with this control socket is joined."""
    return control.with_name(control.name + SUFFIX)


def encode(message: msgspec.Struct) -> bytes:
    """One packet. Raises BadPacket if it is too long."""
    data = msgspec.json.encode(message)
    if len(data) > PACKET_BYTES_MAX:
        raise BadPacket(f"the command line is longer than {PACKET_BYTES_MAX} bytes")
    return data


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The next packet, b"" at the end, with descriptors, which are the caller's. Raises OSError, BadPacket if cut."""
    data, descriptors, flags, _ = socket.recv_fds(sock, PACKET_BYTES_MAX, DESCRIPTORS_MAX)
    for number in descriptors:  # at once, and by hand: Python 3.11 does not pass flags on
        os.set_inheritable(number, False)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(descriptors)
        raise BadPacket("the packet is too long or has too many descriptors")
    return data, descriptors


def close_all(descriptors: Sequence[int]) -> None:
    """Close these."""
    for number in descriptors:
        os.close(number)
