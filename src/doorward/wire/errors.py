"""What goes wrong when bytes from the network are read or written.

    WireError              our caller's mistake: a call out of order, an impossible argument
    └── ProtocolError      the other side's mistake, or its refusal

Nothing in this room raises anything else. `reason` is a stable slug that
records and tests may compare; `detail` is one line for people and may change.
Parsers quote what came from the network only through `printable`, so that
`detail` is safe to show, and never quote a password at all.
"""


class WireError(Exception):
    """Something about the bytes or their use was wrong."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ProtocolError(WireError):
    """The other side broke the protocol, or refused us.

    `reply` is what the protocol wants sent before the connection is closed;
    empty when the right answer is to close without a word.
    `code` is the reply code the other side gave when it refused us, if any.
    """

    def __init__(self, reason: str, detail: str = "", *, reply: bytes = b"", code: int | None = None) -> None:
        super().__init__(reason, detail)
        self.reply = reply
        self.code = code
