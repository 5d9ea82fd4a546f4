"""A name and a password as they stand in a protocol's fields.

Shared by SOCKS5 (RFC 1929) and HTTP Basic (RFC 7617), so that a user who may
come in by one may come in by the other. RFC 1929 names no encoding; we take
UTF-8 for both, and refuse control characters, as RFC 7617 section 2 does.
Nothing here knows whether a password is right, and no error quotes one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from doorward.wire.errors import ProtocolError

FIELD_BYTES_MAX: Final = 255  # RFC 1929 has one byte for the length; RFC 7617 names no limit


class Credentials(NamedTuple):
    """Who the other side says it is. Its `repr` keeps the password to itself."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=…)"


def read_credentials(username: bytes, password: bytes) -> Credentials:
    """Take both fields from the wire.

    The name is 1 to 255 bytes, the password 0 to 255 (RFC 1929 wants one at
    least, but clients with an empty password exist, and it is simply wrong).
    Raises ProtocolError `bad_credentials_form`.
    """
    if not username:
        raise ProtocolError("bad_credentials_form", "the user name is empty")
    return Credentials(_read_field("user name", username), _read_field("password", password))


def write_credentials(username: str, password: str) -> tuple[bytes, bytes]:
    """The opposite of `read_credentials`, with the same limits and errors."""
    try:
        fields = username.encode(), password.encode()
    except UnicodeEncodeError:
        raise ProtocolError("bad_credentials_form", "not expressible in UTF-8") from None
    read_credentials(*fields)
    return fields


def _read_field(what: str, field: bytes) -> str:
    if len(field) > FIELD_BYTES_MAX:
        raise ProtocolError(
            "bad_credentials_form", f"the {what} has {len(field)} bytes, at most {FIELD_BYTES_MAX}"
        )
    try:
        text = field.decode()
    except UnicodeDecodeError:
        raise ProtocolError("bad_credentials_form", f"the {what} is not UTF-8") from None
    if not text.isprintable() and any(c < " " or "\x7f" <= c <= "\x9f" for c in text):
        raise ProtocolError("bad_credentials_form", f"the {what} holds a control character")
    return text
