"""What TLS is spoken with: certificates, keys, trust and versions, read and checked once, long before a connection.

A context is made here, kept by whoever asked for it, and used for every connection of its kind. Never below
TLS 1.2, no compression, no renegotiation (RFC 9325). Nothing here waits for a peer; files are read, so call it
where that may block.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple, TypeAlias

from doorward.api.errors import BadArgument

# A file's name, or PEM text in memory.
Source: TypeAlias = str | bytes
AskClient: TypeAlias = Literal["no", "optional", "required"]
# What a client asks for (lower case; None if it did not say) becomes the context whose certificate it is shown.
# None refuses it. Called in the middle of the handshake: it must not wait.
Choose: TypeAlias = Callable[[str | None], ssl.SSLContext | None]

NAME_CHARACTERS_MAX: Final = 253  # RFC 1035, section 2.3.4, as text without the final dot
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


class Identity(NamedTuple):
    """Who we are: a certificate chain, leaf first, and its private key, which may stand in the same place."""

    chain: Source
    key: Source | None = None


class NamedObject(ssl.SSLObject):
    """Remembers what the client asked for, and why that was refused, if it was; then also whose fault it is."""

    server_name: str | None = None
    refusal: str | None = None
    is_ours = False

    def do_handshake(self) -> None:
        """A name that is not even ASCII is refused before `_on_name` sees it, and Python would print that it was."""
        before = sys.unraisablehook

        def heard(what: sys.UnraisableHookArgs) -> None:
            if what.exc_type is UnicodeDecodeError and isinstance(what.object, bytes):
                self.refusal = f"{what.object!r} is no name"
            else:
                before(what)

        sys.unraisablehook = heard
        try:
            super().do_handshake()
        finally:
            sys.unraisablehook = before


def client_context(
    *,
    ca: Source | None = None,
    system_trust: bool | None = None,
    identity: Identity | None = None,
    alpn: Sequence[str] = (),
    verify: bool = True,
) -> ssl.SSLContext:
    """For connections in which the peer is the server: its certificate must be good for the name we ask for.

    Trusted are the authorities of `ca`; without it, or with `system_trust`, those of the system. `identity` is
    shown to a server that asks. `verify=False` accepts anybody. Raises BadArgument for what cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, alpn)
    context.hostname_checks_common_name = False  # RFC 9525, section 2: names stand in subjectAltName alone
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if ca is not None:
        _trust(context, ca)
    if system_trust or (system_trust is None and ca is None):
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if identity is not None:
        _identify(context, identity)
    return context


def server_context(
    identity: Identity,
    *,
    alpn: Sequence[str] = (),
    ask_client: AskClient = "no",
    ca: Source | None = None,
    choose: Choose | None = None,
) -> ssl.SSLContext:
    """For connections in which the peer is the client. `alpn`: the first of ours that the client offers, too.

    `ask_client` for a certificate signed by an authority of `ca`: one that it shows must be good, and if required
    it must show one. `choose` picks the certificate by name, and nothing else: all other settings are those of
    this context. Raises BadArgument for what cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, alpn)
    # A client that sends its last words and closes without reading would reset the connection over an unread
    # ticket, and its last words would be lost. Without resumption a connection costs one more signature.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.sslobject_class = NamedObject
    context.sni_callback = _on_name(choose)
    if ask_client != "no":
        if ca is None:
            raise BadArgument("a client's certificate is asked for, but nobody is named who may sign it")
        context.verify_mode = ssl.CERT_REQUIRED if ask_client == "required" else ssl.CERT_OPTIONAL
        _trust(context, ca)
    _identify(context, identity)
    return context


def _context(protocol: int, alpn: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if alpn:
        try:
            context.set_alpn_protocols(list(alpn))
        except (ssl.SSLError, UnicodeError) as error:
            raise BadArgument(f"ALPN {', '.join(alpn)!r}: {error}") from None
    return context


def _trust(context: ssl.SSLContext, ca: Source) -> None:
    try:
        if isinstance(ca, str):
            context.load_verify_locations(cafile=ca)
        else:
            context.load_verify_locations(cadata=ca.decode("ascii"))
    except (OSError, ValueError) as error:
        raise BadArgument(f"authorities {_shown(ca)}: {words(error)}") from None


def _identify(context: ssl.SSLContext, identity: Identity) -> None:
    chain, key = identity
    try:
        with _as_file(chain) as chain_file, _as_file(chain if key is None else key) as key_file:
            context.load_cert_chain(chain_file, key_file, _no_password)
    except (OSError, ValueError) as error:
        which = _shown(chain) if key is None else f"{_shown(chain)} with key {_shown(key)}"
        raise BadArgument(f"certificate {which}: {words(error)}") from None


def _no_password() -> str:
    """OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")


@contextmanager
def _as_file(source: Source) -> Iterator[str]:
    """A name under which OpenSSL can read it; what is in memory never meets a disk."""
    if isinstance(source, str):
        yield source
        return
    with os.fdopen(os.memfd_create("pem", os.MFD_CLOEXEC), "wb") as file:
        file.write(source)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _on_name(choose: Choose | None) -> Callable[[ssl.SSLObject, str, ssl.SSLContext], int | None]:
    """OpenSSL asks once for each handshake, with None in place of a name that was not sent."""

    def on_name(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        assert isinstance(tls, NamedObject)
        if name is not None:
            name = name.lower()
            if len(name) > NAME_CHARACTERS_MAX or not _NAME.fullmatch(name):
                tls.refusal = f"{name!r} is no name"
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            tls.server_name = name
        if choose is None:
            return None
        try:
            chosen = choose(name)
        except Exception as error:  # what goes up from here would be printed, and met by nobody
            tls.refusal = f"no certificate could be chosen: {type(error).__name__}: {error}"
            tls.is_ours = True
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        if chosen is None:
            tls.refusal = (
                f"no certificate for {name!r}" if name else "no certificate for a client that names nobody"
            )
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        if chosen is not context:
            tls.context = chosen
        return None

    return on_name


def _shown(source: Source) -> str:
    return repr(source) if isinstance(source, str) else "given as text"


def words(error: Exception) -> str:
    """OpenSSL's or the system's reason, in plain letters."""
    if isinstance(error, ssl.SSLError):
        return (getattr(error, "reason", None) or "unknown").lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
