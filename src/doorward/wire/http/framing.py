"""How long is the body, and may the connection be used again: the two judgements smuggling attacks (RFC 9112
6.3, 9.3).

Where two readers of the same bytes could disagree, the message is refused rather than repaired: the RFC lets a
receiver prefer Transfer-Encoding to Content-Length and fold equal lengths into one; we do not.
"""

from __future__ import annotations

from typing import Final

from doorward.wire.http.errors import HttpError
from doorward.wire.http.head import Head
from doorward.wire.http.model import CHUNKED, Framing

LENGTH_DIGITS_MAX: Final = 18  # below 2**63 whatever the digits are

# Naming these in Connection would have the next hop lose what the message's meaning hangs on.
_NEVER_HOP_BY_HOP: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()


def declared_framing(head: Head) -> Framing | None:
    """What Content-Length or Transfer-Encoding says; None if there is neither.

    Raises HttpError: `http_header_lookalike`, `http_two_framings`, `http_transfer_coding`, `http_content_length`,
    `http_content_length_twice`.
    """
    fields = head.fields
    if b"content_length" in fields or b"transfer_encoding" in fields:
        # Gateways that turn names into environment variables cannot tell these from the real ones.
        raise HttpError("http_header_lookalike", "a framing field is written with an underscore")
    lengths = fields.get(b"content-length")
    codings = fields.get(b"transfer-encoding")
    if codings:
        if lengths:
            raise HttpError("http_two_framings", "both Content-Length and Transfer-Encoding are given")
        return _chunked(head.version, codings)
    return _length(lengths) if lengths else None


def _chunked(version: str, codings: list[bytes]) -> Framing:
    if len(codings) > 1 or codings[0].lower() != b"chunked":
        raise HttpError(
            "http_transfer_coding", f"Transfer-Encoding is not just chunked: {codings[0][:100]!r}"
        )
    if version != "1.1":
        raise HttpError("http_transfer_coding", "HTTP/1.0 has no Transfer-Encoding")  # RFC 9112 6.1
    return CHUNKED


def _length(lengths: list[bytes]) -> Framing:
    if len(lengths) > 1:
        raise HttpError("http_content_length_twice", "Content-Length is given more than once")
    digits = lengths[0]
    if not digits.isdigit() or len(digits) > LENGTH_DIGITS_MAX:
        raise HttpError("http_content_length", f"Content-Length is not a plain number: {digits[:100]!r}")
    return Framing("length", int(digits))


def connection_options(head: Head) -> frozenset[bytes]:
    """The names in the Connection field, in lower case. Raises HttpError `http_connection_option`."""
    values = head.fields.get(b"connection")
    if not values:
        return _NO_OPTIONS
    options = frozenset(list_tokens(values))
    if options & _NEVER_HOP_BY_HOP:
        raise HttpError("http_connection_option", "Connection names a field that must reach the other end")
    return options


def stays_open(head: Head, options: frozenset[bytes]) -> bool:
    """Whether the sender keeps the connection after this message; Proxy-Connection is understood as well."""
    words = options
    proxy_values = head.fields.get(b"proxy-connection")
    if proxy_values:
        words = words | frozenset(list_tokens(proxy_values))
    if b"close" in words:
        return False
    return head.version == "1.1" or b"keep-alive" in words


def list_tokens(values: list[bytes]) -> list[bytes]:
    """The members of a comma-separated field, in lower case, in order (RFC 9110 5.6.1)."""
    members = (member.strip() for member in b",".join(values).lower().split(b","))
    return [member for member in members if member]
