"""The judgement of a response head: what the server answered and where its body ends (RFC 9112 4, 6.3).

The server is no more trusted than the client: an answer that two readers could frame differently is refused,
and so is a switch of protocols that nobody asked for. Every error here is the server's fault; the reader makes
it 502.
"""

from __future__ import annotations

import re
from typing import Final, cast

from doorward.wire.http.errors import HttpError
from doorward.wire.http.framing import connection_options, declared_framing, list_tokens, stays_open
from doorward.wire.http.head import Head, parse_response_head
from doorward.wire.http.model import NO_BODY, UNTIL_CLOSE, Framing, Request, Response, Version

# Servers that send no reason phrase often leave out the space before it as well.
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_OTHER_VERSION: Final = re.compile(rb"HTTP/(?!1\.[01] )[0-9.]+ ")


def read_response(block: bytes, request: Request) -> Response:
    """Judge a whole head, its empty line included, as an answer to `request` (never a CONNECT).

    Raises HttpError, with these reasons beside those of `head` and `framing`: `http_malformed`, `http_version`,
    `http_unasked_upgrade`, `http_switch`.
    """
    head = parse_response_head(block)
    match = _STATUS_LINE.fullmatch(head.first_line)
    if match is None:
        reason = "http_version" if _OTHER_VERSION.match(head.first_line) else "http_malformed"
        raise HttpError(reason, f"{head.first_line[:100]!r} is not a status line of HTTP/1.0 or HTTP/1.1")
    version = match[1].decode()
    head = head._replace(version=version)
    status = int(match[2])
    declared = declared_framing(head)
    options = connection_options(head)
    if status == 101:
        _check_switch(head, options, request)
    elif head.complaint is not None:
        raise HttpError("http_malformed", f"llhttp: {head.complaint}")
    framing = _framing(declared, status, request.method)
    return Response(
        status,
        match[3] or b"",
        cast(Version, version),
        head.headers,
        framing,
        options,
        framing is not UNTIL_CLOSE and status != 101 and stays_open(head, options),
        _declared_length(declared, framing, status),
    )


def _framing(declared: Framing | None, status: int, method: str) -> Framing:
    """RFC 9112 6.3: some answers have no body whatever their fields say."""
    if method == "HEAD" or status < 200 or status in (204, 304):
        if declared is not None and declared.kind == "chunked" and (status < 200 or status == 204):
            raise HttpError(
                "http_transfer_coding", f"status {status} cannot have Transfer-Encoding"
            )  # RFC 9112 6.1
        return NO_BODY
    return declared or UNTIL_CLOSE


def _declared_length(declared: Framing | None, framing: Framing, status: int) -> int | None:
    if (
        declared is None
        or declared.kind != "length"
        or framing is not NO_BODY
        or status < 200
        or status == 204
    ):
        return None
    return declared.length


def _check_switch(head: Head, options: frozenset[bytes], request: Request) -> None:
    if request.upgrade is None:
        raise HttpError("http_unasked_upgrade", "the server switches protocols without having been asked")
    protocols = list_tokens(head.fields.get(b"upgrade", []))
    if protocols != [request.upgrade.encode()] or b"upgrade" not in options or head.complaint is not None:
        raise HttpError("http_switch", f"the server switches to something other than {request.upgrade}")
