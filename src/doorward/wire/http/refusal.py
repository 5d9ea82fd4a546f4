"""The firewall's own answers: small, complete, and honest about the reason.

The text is for a person, the `Doorward-Reason` header and the JSON form are for programs. Whatever came from
the network is escaped on its way in here. RFC 9110 15 (status codes), RFC 7235 and 7617 (the challenge of 407).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from doorward.wire.http.model import Request
from doorward.wire.http.writer import write_head
from doorward.wire.printable import printable

CHALLENGE: Final = (b"Proxy-Authenticate", b'Basic realm="doorward", charset="UTF-8"')
ALLOW: Final = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT")
TEXT_MAX: Final = 500

PHRASES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    405: "Method Not Allowed",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


def refusal(
    status: int,
    reason: str,
    text: str,
    *,
    rule: str | None = None,
    request: Request | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
    keep_alive: bool = False,
) -> bytes:
    """A whole response: `status` is one of `PHRASES`, `reason` a slug of ours, `text` a sentence (escaped, cut
    at 500).

    `rule` is the name of the rule that decided. `request` says whether a body is wanted (not for HEAD) and in
    which form: JSON if its Accept prefers that to plain text. 407 and 405 get the header they must have. Raises
    ValueError if a header given here would break the response, KeyError for another status.
    """
    # A slug is ours and plain, but a filter may have chosen it.
    slug = printable(reason, 100).encode("ascii", "backslashreplace")
    body, content_type = _body(reason, text, rule, wants_json=request is not None and _prefers_json(request))
    lines = [
        (b"Content-Type", content_type),
        (b"Content-Length", b"%d" % len(body)),
        (b"Doorward-Reason", slug),
        (b"Cache-Control", b"no-store"),
        *({407: (CHALLENGE,), 405: (ALLOW,)}.get(status, ())),
        *headers,
    ]
    if not keep_alive:
        lines.append((b"Connection", b"close"))
    elif request is not None and request.version == "1.0":
        lines.append((b"Connection", b"keep-alive"))
    head = write_head(b"HTTP/1.1 %d %b" % (status, PHRASES[status].encode()), lines)
    return head if request is not None and request.method == "HEAD" else head + body


def _body(reason: str, text: str, rule: str | None, *, wants_json: bool) -> tuple[bytes, bytes]:
    if wants_json:
        fields = {"reason": printable(reason, 100), "message": printable(text, TEXT_MAX)}
        if rule is not None:
            fields["rule"] = printable(rule)
        return json.dumps(fields).encode() + b"\n", b"application/json"
    decided = "" if rule is None else f", rule: {printable(rule)}"
    message = f"doorward: {printable(text, TEXT_MAX)}\nreason: {printable(reason, 100)}{decided}\n"
    return message.encode(), b"text/plain; charset=utf-8"


def _prefers_json(request: Request) -> bool:
    accepted = b",".join(value for name, value in request.headers if name.lower() == b"accept")
    ranges = dict(map(_media_range, accepted.lower().split(b",")))
    json_weight = ranges.get(b"application/json", 0.0)
    return json_weight > max(
        ranges.get(name, 0.0) for name in (b"text/plain", b"text/html", b"text/*", b"*/*")
    )


def _media_range(text: bytes) -> tuple[bytes, float]:
    """One member of Accept with its weight; a weight that is no number counts as 0 (RFC 9110 12.4.2)."""
    media_type, *parameters = (part.strip() for part in text.split(b";"))
    weight = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name == b"q":
            weight = float(value) if len(value) <= 5 and value.replace(b".", b"", 1).isdigit() else 0.0
    return media_type, weight
