"""What OpenSSL can do and Python's ssl module does not offer, for tests of hostile and unusual peers."""

from __future__ import annotations

import ctypes
import ssl
import sys
from contextlib import suppress

import pytest

_FRAGMENT = 52  # SSL_CTRL_SET_MAX_SEND_FRAGMENT


def _library() -> ctypes.CDLL:
    """The one that Python's ssl module is linked with."""
    import _ssl

    if sys.implementation.name != "cpython" or hasattr(sys, "gettotalrefcount"):
        pytest.skip("the place of OpenSSL's object in Python's is known for ordinary CPython only")
    library = ctypes.CDLL(_ssl.__file__)
    if not hasattr(library, "SSL_key_update"):
        pytest.skip("this Python has OpenSSL built in, out of reach")
    return library


def _pointer(tls: ssl.SSLObject) -> ctypes.c_void_p:
    """CPython's struct: an object's head, a weak reference, then the SSL pointer."""
    inner = getattr(tls, "_sslobj")  # noqa: B009 - it has no public name
    where = id(inner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    return ctypes.c_void_p.from_address(where)


def ask_for_key_update(tls: ssl.SSLObject) -> None:
    """The next handshake call writes a KeyUpdate that asks for one in return (TLS 1.3)."""
    assert _library().SSL_key_update(_pointer(tls), 1) == 1
    tls.do_handshake()


def ask_for_renegotiation(tls: ssl.SSLObject) -> None:
    """Write the first message of another handshake into this one (TLS 1.2)."""
    assert _library().SSL_renegotiate(_pointer(tls)) == 1
    with suppress(ssl.SSLWantReadError):  # a server has only asked, a client waits for the answer
        tls.do_handshake()


def send_small_records(tls: ssl.SSLObject, plaintext_bytes_max: int) -> None:
    """From 512 upwards."""
    control = _library().SSL_ctrl
    control.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    assert control(_pointer(tls), _FRAGMENT, plaintext_bytes_max, None) == 1
