"""The one error this package raises: a `ProtocolError` that knows its HTTP status.

The reasons are stable slugs that begin with `http_`; docs and tests may compare them. `reply` is filled in by the
readers, which know whether an answer may still be sent; the functions below them leave it empty.
"""

from __future__ import annotations

from doorward.wire.errors import ProtocolError


class HttpError(ProtocolError):
    """The other side's bytes are not HTTP/1.1 as we accept it. `status` is the answer the client should see."""

    def __init__(self, reason: str, detail: str = "", *, status: int = 400) -> None:
        super().__init__(reason, detail)
        self.status = status
