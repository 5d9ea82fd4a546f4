"""What a line of the control connection is.

A line ends with CRLF (RFC 959 section 5.3.1). Programs that end theirs with LF alone exist, so the first line of
each side says how that side ends its lines: after a first CRLF, an LF alone is refused, because it stands inside
what the sender took for one line, such as a file's name, and the other end might take it for two commands. After a
first LF alone, every LF ends a line. What is written always ends with CRLF, so the next reader has no choice.

CR elsewhere and NUL are refused, also as CR NUL (Telnet's way to write a CR): no name in use needs them. All other
bytes pass as they are: names are in nobody's alphabet.
"""

from __future__ import annotations

from typing import Final

from doorward.wire.errors import ProtocolError

LINE_BYTES_MAX: Final = 8192  # a path of Linux is 4096 bytes at most, and a verb stands before it
END: Final = b"\r\n"


class LineReader:
    """Cuts what was read into lines. Holds one unfinished line, and what came behind it in the same read."""

    __slots__ = ("_buffer", "_is_strict", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._is_strict: bool | None = None

    @property
    def held(self) -> int:
        """Bytes that were fed and not given out yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what was read, in pieces of any size."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next line without its end; None: more bytes needed.

        Raises ProtocolError `ftp_line_too_long`, `ftp_bare_lf`, `ftp_bare_cr`, `ftp_nul`; there is no way on then.
        """
        end = self._buffer.find(b"\n", self._searched)
        if end > LINE_BYTES_MAX or (end < 0 and len(self._buffer) > LINE_BYTES_MAX):
            raise ProtocolError("ftp_line_too_long", f"over {LINE_BYTES_MAX} bytes and no end")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return self._checked(line)

    def _checked(self, line: bytes) -> bytes:
        is_crlf = line.endswith(b"\r")
        if self._is_strict is None:
            self._is_strict = is_crlf
        if is_crlf:
            line = line[:-1]
        elif self._is_strict:
            raise ProtocolError(
                "ftp_bare_lf", "a line of a side that ends its lines with CRLF has an LF in it"
            )
        if b"\r" in line:
            raise ProtocolError("ftp_bare_cr", "a CR stands inside a line")
        if b"\0" in line:
            raise ProtocolError("ftp_nul", "a NUL stands inside a line")
        return line
