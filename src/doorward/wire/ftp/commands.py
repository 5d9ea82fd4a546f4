"""Commands: what a client says on the control connection (RFC 959 section 4.1).

A line is a verb of letters and digits, and after one space an argument in which every byte counts. Anything else
is refused, leading white space too: servers skip it or not, and a filter that guesses wrong has not seen the verb.

Telnet (RFC 959 section 4.1.3 sends IP and DM before ABOR): its commands before a verb are read and left out,
negotiations likewise, which is the refusal that RFC 1123 section 4.1.2.12 wants. Elsewhere 255 is a byte of a name.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from doorward.wire.errors import ProtocolError
from doorward.wire.ftp.lines import END, LineReader

_VERB: Final = re.compile(rb"[A-Za-z][A-Za-z0-9]{0,15}")  # the longest in use has nine, XSHA512 among them
_IAC: Final = 0xFF
_TWO_BYTES: Final = range(0xF1, 0xFA)  # NOP, DM, BRK, IP, AO, AYT, EC, EL, GA
_THREE_BYTES: Final = range(0xFB, 0xFF)  # WILL, WONT, DO, DONT


class Command(NamedTuple):
    """One command. `verb` is in capitals; `argument` is None without a space after the verb."""

    verb: str
    argument: bytes | None = None

    @property
    def wire(self) -> bytes:
        """As it is sent, with its end."""
        verb = self.verb.encode("ascii")
        return verb + END if self.argument is None else verb + b" " + self.argument + END


class CommandReader:
    """Reads one client's commands."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = LineReader()

    @property
    def held(self) -> int:
        """Bytes that were fed and are no command yet."""
        return self._lines.held

    def feed(self, data: bytes) -> None:
        """Take what was read, in pieces of any size."""
        self._lines.feed(data)

    def next(self) -> Command | None:
        """The next command; None: more bytes needed.

        Raises ProtocolError `ftp_bad_command`, `ftp_telnet` and those of `LineReader`; there is no way on then.
        """
        line = self._lines.next()
        return None if line is None else _command(_without_telnet(line))


def _without_telnet(line: bytes) -> bytes:
    """The line behind the Telnet commands at its beginning."""
    start = 0
    while line[start : start + 1] == b"\xff":
        told = line[start + 1] if start + 1 < len(line) else 0
        if told in _TWO_BYTES:
            start += 2
        elif told in _THREE_BYTES and start + 2 < len(line):
            start += 3
        else:
            raise ProtocolError("ftp_telnet", f"a Telnet command that nobody needs here: {told}")
    return line[start:]


def _command(line: bytes) -> Command:
    verb, space, argument = line.partition(b" ")
    if not _VERB.fullmatch(verb):
        # Not quoted: what is no command may well be a password.
        raise ProtocolError("ftp_bad_command", f"{len(line)} bytes that are no command")
    return Command(verb.decode("ascii").upper(), argument if space else None)
