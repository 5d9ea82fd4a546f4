"""One TLS connection's records: bytes of the wire in, plaintext out, and the other way round.

OpenSSL between two memory buffers. No I/O, no waiting, no clock: `TLSLeg` has these. Plaintext is always taken
out whole, record by record: OpenSSL must hold none when our own end is said (see `end`).
"""

from __future__ import annotations

import re
import ssl
from typing import Final, cast

from doorward.api.errors import BadArgument, LinkError, Side, TLSFailed, TLSUntrusted
from doorward.net.tls_context import NamedObject, words

RECORD_BYTES: Final = 16 * 1024  # RFC 8446, section 5.1: no record holds more plaintext

_ALERT = re.compile(r"(?:(?:sslv3|tlsv13) alert|tlsv1(?: alert)?) (.*)")
_IN_A_MESSAGE: Final = "SHUTDOWN_WHILE_IN_INIT"


class Records:
    """See the module. Every call raises TLSFailed kinds; an alert for the peer is then in `outgoing`."""

    __slots__ = ("_broken", "_in", "_name", "_out", "_tls", "ended", "ready", "side")

    def __init__(
        self, context: ssl.SSLContext, side: Side, *, server_side: bool, server_name: str | None
    ) -> None:
        """Raises BadArgument for a `server_name` that no certificate could have."""
        self.side = side
        self.ready = False  # the handshake is done
        self.ended = False  # the peer has said that it will send no more (close_notify)
        self._broken: LinkError | None = None
        self._name = server_name
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(
                self._in, self._out, server_side=server_side, server_hostname=server_name
            )
        except (ssl.SSLError, ValueError, TypeError) as error:
            raise BadArgument(f"TLS with {server_name!r}: {error}") from None

    @property
    def outgoing(self) -> int:
        """Bytes for the wire, waiting to be taken."""
        return self._out.pending

    def take_outgoing(self) -> bytes:
        """All of them."""
        return self._out.read()

    def feed(self, data: bytes) -> None:
        """Bytes of the wire, cut anywhere."""
        self._in.write(data)

    def handshake(self) -> bool:
        """One step; True when it is done. False: send what is outgoing, then feed."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise self._failure(error) from None
        self.ready = True
        return True

    def decrypt(self, bytes_min: int) -> bytes:
        """Plaintext, until there are so many bytes (less than one record more) or no more: b"" if `ended`, or if
        there has to be more of the wire first. What came before a failure is given out before it is raised.
        """
        if self._broken is not None:
            raise self._broken
        parts: list[bytes] = []
        count = 0
        try:
            while count < bytes_min:
                part = self._tls.read(RECORD_BYTES)
                if not part:
                    self.ended = True
                    break
                parts.append(part)
                count += len(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self._broken = self._failure(error)
            if not parts:
                raise self._broken from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def encrypt(self, data: memoryview) -> int:
        """Take plaintext, all of it; 0 if half a message of the peer's handshake is in, and the rest must be first."""
        taken = 0
        try:
            while taken < len(data):
                taken += self._tls.write(data[taken : taken + RECORD_BYTES])
        except ssl.SSLWantReadError:
            assert not taken, "only what comes in can interrupt, and nothing came in"
        except ssl.SSLError as error:
            raise self._failure(error) from None
        return taken

    def end(self) -> bool:
        """Say that we will send no more (close_notify). False, as in `encrypt`: feed and decrypt first.

        OpenSSL goes on to look for the peer's end, and takes any data that it finds instead for an attack. So it
        is shown none.
        """
        kept = self._in.read()
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if error.reason == _IN_A_MESSAGE:
                return False
            raise self._failure(error) from None
        finally:
            self._in.write(kept)
        return True

    @property
    def version(self) -> str:
        """`TLSv1.3` or `TLSv1.2`; empty before the handshake."""
        return self._tls.version() or ""

    @property
    def cipher(self) -> str:
        """The name of the cipher suite; empty before the handshake."""
        cipher = self._tls.cipher()
        return cipher[0] if cipher else ""

    @property
    def alpn(self) -> str | None:
        """The application protocol that both sides agreed on."""
        return self._tls.selected_alpn_protocol()

    @property
    def server_name(self) -> str | None:
        """The name that the client asked for: in the client's role ours, in the server's what came (lower case)."""
        return self._tls.server_name if isinstance(self._tls, NamedObject) else self._name

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate (DER), None if it sent none. Proven only if the context verifies."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def peer_names(self) -> tuple[tuple[str, str], ...]:
        """Kind and value of each subjectAltName of a certificate that was verified; empty for any other."""
        found = (self._tls.getpeercert() or {}).get("subjectAltName", ())
        return cast("tuple[tuple[str, str], ...]", found)

    def _failure(self, error: ssl.SSLError) -> LinkError:
        if isinstance(self._tls, NamedObject) and self._tls.refusal is not None:
            return TLSFailed(self._tls.refusal, side=Side.OURS if self._tls.is_ours else self.side)
        if isinstance(error, ssl.SSLCertVerificationError):
            whose = f"for {self._name!r}" if self._name is not None else "of the client"
            detail = f"the certificate {whose} was not accepted: {error.verify_message}"
            return TLSUntrusted(detail, side=self.side)
        reason = words(error)
        alert = _ALERT.fullmatch(reason)
        return TLSFailed(f"the peer says: {alert[1]}" if alert else reason, side=self.side)
