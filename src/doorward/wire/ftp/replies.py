"""Replies: what a server says on the control connection (RFC 959 section 4.2).

    220 ready                one line: code, space, text
    211-Features:            several lines: code, hyphen, text;
     MDTM                    then any lines,
    211 End                  then the same code and a space

Readers disagree about lines in the middle that begin with three digits: for some any code and a space is the end.
RFC 959 has the server put a space before such a line; what is written here has it, whoever forgot.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from doorward.wire.errors import ProtocolError
from doorward.wire.ftp.lines import END, LineReader
from doorward.wire.printable import printable

LINES_MAX: Final = 4096  # a listing in the reply to STAT is the longest there is
REPLY_BYTES_MAX: Final = 256 * 1024

_FIRST: Final = re.compile(rb"[1-6][0-9]{2}(?:[ -].*)?", re.DOTALL)  # 6: protected replies of RFC 2228
_THREE_DIGITS: Final = re.compile(rb"[0-9]{3}")


class Reply(NamedTuple):
    """One reply. `lines` are its lines' texts without code; those in the middle are whole lines, as they came."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def is_final(self) -> bool:
        """Whether the command is answered by this; 1xx says that more follows (RFC 959 section 4.2.1)."""
        return self.code >= 200

    @property
    def text(self) -> bytes:
        """Everything that was said, lines separated by LF."""
        return b"\n".join(self.lines)

    @property
    def wire(self) -> bytes:
        """As it is sent, with its end; read by anybody it is this reply and no other."""
        code = b"%d" % self.code
        if len(self.lines) == 1:
            return code + b" " + self.lines[0] + END
        first, *middle, last = self.lines
        shown = [code + b"-" + first, *(_padded(line, code) for line in middle), code + b" " + last]
        return END.join(shown) + END


class ReplyReader:
    """Reads one server's replies. Holds one unfinished reply, at most REPLY_BYTES_MAX and a line."""

    __slots__ = ("_code", "_lines", "_reader", "_size")

    def __init__(self) -> None:
        self._reader = LineReader()
        self._code = b""
        self._lines: list[bytes] = []
        self._size = 0

    @property
    def held(self) -> int:
        """Bytes that were fed and are no reply yet."""
        return self._reader.held + self._size

    def feed(self, data: bytes) -> None:
        """Take what was read, in pieces of any size."""
        self._reader.feed(data)

    def next(self) -> Reply | None:
        """The next reply; None: more bytes needed.

        Raises ProtocolError `ftp_bad_reply`, `ftp_reply_too_long` and those of `LineReader`; there is no way on then.
        """
        while (line := self._reader.next()) is not None:
            if (reply := self._take(line)) is not None:
                return reply
        return None

    def _take(self, line: bytes) -> Reply | None:
        if not self._lines:
            if not _FIRST.fullmatch(line):
                raise ProtocolError("ftp_bad_reply", f"not a reply: {printable(line[:40])}")
            if line[3:4] != b"-":
                return Reply(int(line[:3]), (line[4:],))
            self._code = line[:3]
            self._keep(line[4:])
            return None
        if line[:3] == self._code and line[3:4] in (b" ", b""):
            reply = Reply(int(self._code), (*self._lines, line[4:]))
            self._lines, self._size = [], 0
            return reply
        self._keep(line)
        return None

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if len(self._lines) >= LINES_MAX or self._size > REPLY_BYTES_MAX:
            raise ProtocolError(
                "ftp_reply_too_long",
                f"{len(self._lines)} lines, {self._size} bytes and no end; at most {LINES_MAX} and {REPLY_BYTES_MAX}",
            )


def _padded(line: bytes, code: bytes) -> bytes:
    """A line in the middle that nobody takes for the last one."""
    if _THREE_DIGITS.match(line) and not line.startswith(code + b"-"):
        return b" " + line
    return line
