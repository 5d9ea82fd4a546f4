"""TFTP's packets, as far as a firewall reads them: requests wholly, the others by their shape. No I/O.

Rules: RFC 1350 for packets, RFC 2347 for options, RFC 2348 (blksize), RFC 2349 (timeout, tsize) and RFC 7440
(windowsize) for the values of those that are known. What two programs could read differently is refused: a request
that does not end with its last NUL, an option given twice. So is `multicast` (RFC 2090): its data goes elsewhere.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from doorward.wire.errors import ProtocolError
from doorward.wire.printable import printable

# RFC 2347: "the maximum size of a request packet is 512 octets".
REQUEST_BYTES_MAX: Final = 512
# RFC 2348: 65,464 bytes of data behind four of head; whatever else there is is smaller.
PACKET_BYTES_MAX: Final = 65_468
MODES: Final = frozenset({"netascii", "octet"})  # "mail" is obsolete (RFC 1350 section 1)

BAD_PACKET: Final = "tftp_bad_packet"
BAD_REQUEST: Final = "tftp_bad_request"
BAD_OPTION: Final = "tftp_bad_option"
MULTICAST: Final = "tftp_multicast"

_TEXT: Final = re.compile(rb"[^\x00-\x1f\x7f]+")
_GROUP: Final = b"multicast"  # RFC 2090: the one option that a client gives without a value
_NUMBER: Final = re.compile(rb"[0-9]{1,19}")
# The values that each option may have (RFC 2348, RFC 2349, RFC 7440). Of others the server says what it makes of them.
_VALUES: Final[Mapping[str, tuple[int, int]]] = {
    "blksize": (8, 65_464),
    "timeout": (1, 255),
    "tsize": (0, 2**63 - 1),
    "windowsize": (1, 65_535),
}


class Opcode(enum.IntEnum):
    """What a packet is."""

    READ = 1
    WRITE = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OPTIONS = 6  # OACK


class ErrorCode(enum.IntEnum):
    """Of RFC 1350 (appendix) and RFC 2347, those that a firewall gives."""

    ACCESS_VIOLATION = 2
    OPTIONS_REFUSED = 8


class Request(NamedTuple):
    """A client's wish. `file` is as it was written; names of options are in lower case."""

    writes: bool
    file: bytes
    mode: str
    options: Mapping[str, bytes]


def opcode_of(packet: bytes) -> Opcode:
    """What a packet is, by its head and length alone. Raises ProtocolError `tftp_bad_packet`."""
    code = int.from_bytes(packet[:2], "big") if len(packet) >= 4 else 0
    if not Opcode.READ <= code <= Opcode.OPTIONS or len(packet) > PACKET_BYTES_MAX:
        raise ProtocolError(BAD_PACKET, f"{len(packet)} bytes that are no packet of TFTP")
    opcode = Opcode(code)
    if opcode is Opcode.ACK and len(packet) != 4:
        raise ProtocolError(BAD_PACKET, f"an acknowledgement of {len(packet)} bytes in place of 4")
    if opcode in (Opcode.ERROR, Opcode.OPTIONS) and packet[-1]:
        raise ProtocolError(BAD_PACKET, "a text that does not end")
    return opcode


def read_request(packet: bytes) -> Request:
    """A read or write request, wholly.

    Raises ProtocolError: `tftp_bad_request` for what is none, or none that everybody reads alike; `tftp_bad_option`
    for an option given twice or with an impossible value; `tftp_multicast`, with what to answer.
    """
    opcode = int.from_bytes(packet[:2], "big")
    if opcode not in (Opcode.READ, Opcode.WRITE):
        raise ProtocolError(BAD_REQUEST, "neither a read nor a write request")
    if len(packet) > REQUEST_BYTES_MAX:
        raise ProtocolError(BAD_REQUEST, f"{len(packet)} bytes, at most {REQUEST_BYTES_MAX}")
    *texts, rest = packet[2:].split(b"\0")
    if rest or len(texts) < 2 or len(texts) % 2:
        raise ProtocolError(BAD_REQUEST, f"{len(texts)} whole texts, and {len(rest)} bytes more")
    if not all(_TEXT.fullmatch(text) or _is_group(texts, place) for place, text in enumerate(texts)):
        raise ProtocolError(BAD_REQUEST, "an empty text, or control characters")
    file, mode = texts[0], printable(texts[1].lower())
    if mode not in MODES:
        raise ProtocolError(BAD_REQUEST, f"mode {mode}")
    return Request(opcode == Opcode.WRITE, file, mode, _options(texts[2:]))


def error_packet(code: ErrorCode, message: str) -> bytes:
    """An ERROR. The message is ASCII without control characters."""
    return bytes((0, Opcode.ERROR, 0, code)) + message.encode("ascii") + b"\0"


def _is_group(texts: list[bytes], place: int) -> bool:
    """Whether this is the empty value with which a client asks for a group's address."""
    return not texts[place] and place > 2 and place % 2 == 1 and texts[place - 1].lower() == _GROUP


def _options(texts: list[bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for raw, value in zip(texts[::2], texts[1::2], strict=True):
        name = raw.lower().decode("latin-1")
        if name in found:
            raise ProtocolError(BAD_OPTION, f"{printable(raw)} is given twice")
        if raw.lower() == _GROUP:
            reply = error_packet(ErrorCode.OPTIONS_REFUSED, f"Refused by the firewall: {MULTICAST}")
            raise ProtocolError(MULTICAST, "data for a group goes where nobody sees it", reply=reply)
        if name in _VALUES:
            first, last = _VALUES[name]
            if not _NUMBER.fullmatch(value) or not first <= int(value) <= last:
                raise ProtocolError(BAD_OPTION, f"{name} is {printable(value)}")
        found[name] = value
    return found
