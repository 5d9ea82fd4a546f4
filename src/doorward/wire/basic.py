"""The value of `Authorization: Basic` and `Proxy-Authorization: Basic`, both ways.

Rules: RFC 7617 section 2, RFC 7235 appendix C (the scheme's name in any case,
then spaces). Stricter than some: the base64 must be the one canonical form,
padding included, so that one name and password have one spelling.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from doorward.wire.credentials import FIELD_BYTES_MAX, Credentials, read_credentials, write_credentials
from doorward.wire.errors import ProtocolError

_TOKEN_BYTES_MAX: Final = 4 * ((2 * FIELD_BYTES_MAX + 1 + 2) // 3)  # base64 of both fields and the colon


def parse_basic(header_value: bytes) -> Credentials:
    """Read the field's value: `Basic dXNlcjpwYXNz`.

    The first colon ends the name; the password may hold more of them.
    Raises ProtocolError `bad_credentials_form`, also for another scheme.
    """
    scheme, _, token = header_value.strip(b" \t").partition(b" ")
    if scheme.lower() != b"basic":
        raise ProtocolError("bad_credentials_form", "the scheme is not Basic")
    token = token.lstrip(b" ")
    if len(token) > _TOKEN_BYTES_MAX:
        raise ProtocolError(
            "bad_credentials_form", f"the credentials have {len(token)} bytes, at most {_TOKEN_BYTES_MAX}"
        )
    try:
        plain = binascii.a2b_base64(token, strict_mode=True)
    except binascii.Error:
        raise ProtocolError("bad_credentials_form", "the credentials are not base64") from None
    if base64.b64encode(plain) != token:
        raise ProtocolError("bad_credentials_form", "the credentials are not canonical base64")
    username, colon, password = plain.partition(b":")
    if not colon:
        raise ProtocolError("bad_credentials_form", "no colon between name and password")
    return read_credentials(username, password)


def basic(username: str, password: str) -> bytes:
    """Write the field's value. Raises ProtocolError `bad_credentials_form` if it could not be read back."""
    if ":" in username:
        raise ProtocolError("bad_credentials_form", "a colon cannot stand in the user name")
    return b"Basic " + base64.b64encode(b":".join(write_credentials(username, password)))
