"""The client role: what we say to an upstream proxy, and what it answers.

    start() ─▶ bytes to send
    receive(bytes read) ─▶ bytes to send, and a Bound as soon as the tunnel stands

BIND is left out: chaining asks only for CONNECT, and for UDP_ASSOCIATE from
version 5. A proxy that speaks out of turn is read in order, never trusted
with more than its turn: what it sent behind its last reply is tunnel.
An upstream's refusal is a ProtocolError `upstream_refused` with its `code`.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

from doorward.wire.credentials import write_credentials
from doorward.wire.errors import ProtocolError, WireError
from doorward.wire.socks.address import read_address, write_address, write_name, write_port
from doorward.wire.socks.model import Bound, Command, IPAddress, Method, Socks4Reply, Socks5Reply

_METHOD, _LOGIN, _REPLY, _DONE = range(4)
_REPLY4_BYTES: Final = 8


class Socks5Client:
    """One handshake with a SOCKS5 proxy.

    With a user name, both no authentication and a password are offered, and
    the password is sent only if the proxy asks for it. Construction raises
    ProtocolError `bad_name` or `bad_credentials_form`, WireError `misuse`.
    `trailing` is what the server behind the proxy sent already, complete and
    in order, once `receive` has given a Bound.
    """

    __slots__ = ("_buffer", "_login", "_request", "_state", "trailing")

    def __init__(
        self,
        destination: str | IPAddress,
        port: int,
        *,
        command: Command = Command.CONNECT,
        username: str | None = None,
        password: str = "",
    ) -> None:
        if command is Command.BIND:
            raise WireError("misuse", "BIND through an upstream proxy is not supported")
        self._request = bytes((5, command, 0)) + write_address(destination, port)
        self._login = b"" if username is None else _login(username, password)
        self._state = _METHOD
        self._buffer = b""
        self.trailing = b""

    @property
    def asked(self) -> bool:
        """Whether the proxy has taken us for who we are, and been given the request."""
        return self._state >= _REPLY

    def start(self) -> bytes:
        """The greeting."""
        return b"\x05\x02\x00\x02" if self._login else b"\x05\x01\x00"

    def receive(self, data: bytes) -> tuple[bytes, Bound | None]:
        """Take what was read, in pieces of any size; give what to send, and the end if it is reached.

        Raises ProtocolError `socks_bad_version`, `bad_method`, `no_method`,
        `login_refused`, `upstream_refused`, `bad_reserved`,
        `bad_address_type`, `bad_name`; then the connection is of no use.
        Raises WireError `misuse` after the end.
        """
        if self._state == _DONE:
            raise WireError("misuse", "the handshake is over")
        self._buffer += data
        send = b""
        while self._state != _REPLY:
            if len(self._buffer) < 2:
                return send, None
            answer, self._buffer = self._buffer[:2], self._buffer[2:]
            send += self._read_method(answer) if self._state == _METHOD else self._read_login(answer)
        return send, self._read_reply()

    def _read_method(self, answer: bytes) -> bytes:
        version, method = answer
        if version != 5:
            raise ProtocolError("socks_bad_version", f"the proxy answered with version {version}, not 5")
        if method == Method.NO_ACCEPTABLE:
            raise ProtocolError(
                "no_method", "the proxy accepts none of our ways to authenticate", code=method
            )
        if method == Method.USERNAME_PASSWORD and self._login:
            self._state = _LOGIN
            return self._login
        if method != Method.NO_AUTHENTICATION:
            raise ProtocolError("bad_method", f"the proxy chose method {method}, which was not offered")
        self._state = _REPLY
        return self._request

    def _read_login(self, answer: bytes) -> bytes:
        if answer[0] != 1:
            raise ProtocolError(
                "socks_bad_version", f"the proxy answered with login version {answer[0]}, not 1"
            )
        if answer[1]:
            raise ProtocolError("login_refused", "the proxy refused the user or password", code=answer[1])
        self._state = _REPLY
        return self._request

    def _read_reply(self) -> Bound | None:
        """VER, REP, RSV, then the address. A refusal counts without the rest: some proxies send no more."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        if buffer[0] != 5:
            raise ProtocolError("socks_bad_version", f"the proxy replied with version {buffer[0]}, not 5")
        if buffer[1]:
            raise _refused(Socks5Reply, buffer[1])
        if len(buffer) > 2 and buffer[2]:
            raise ProtocolError("bad_reserved", f"the reserved byte is {buffer[2]}, not 0")
        found = read_address(buffer, 3)
        if found is None:
            return None
        host, address, port, end = found
        self.trailing = buffer[end:]
        self._buffer = b""
        self._state = _DONE
        return Bound(host, address, port)


class Socks4Client:
    """One handshake with a SOCKS4 proxy; a name makes it 4a. Only CONNECT, only IPv4.

    Construction raises ProtocolError `bad_name` or `bad_user_id`, WireError `misuse`.
    `trailing` is as in Socks5Client.
    """

    __slots__ = ("_buffer", "_done", "_request", "trailing")

    def __init__(self, destination: str | IPv4Address, port: int, *, user_id: str = "") -> None:
        packed, name = b"\0\0\0\x01", b""
        if isinstance(destination, str):
            name = write_name(destination) + b"\0"
        else:
            packed = destination.packed
            # Such an address would be read as "a name follows", and the proxy would wait for it.
            if packed[:3] == b"\0\0\0" and packed[3]:
                raise WireError("misuse", f"{destination} cannot be asked for in version 4")
        self._request = b"\x04\x01" + write_port(port) + packed + _user_id(user_id) + b"\0" + name
        self._buffer = b""
        self._done = False
        self.trailing = b""

    def start(self) -> bytes:
        """The request."""
        return self._request

    def receive(self, data: bytes) -> tuple[bytes, Bound | None]:
        """As in Socks5Client; there is never anything to send.

        Raises ProtocolError `socks_bad_version`, `upstream_refused`, and WireError `misuse` after the end.
        """
        if self._done:
            raise WireError("misuse", "the handshake is over")
        self._buffer = buffer = self._buffer + data
        if len(buffer) < 2:
            return b"", None
        if buffer[0]:
            raise ProtocolError("socks_bad_version", f"the proxy replied with version {buffer[0]}, not 0")
        if buffer[1] != Socks4Reply.GRANTED:
            raise _refused(Socks4Reply, buffer[1])
        if len(buffer) < _REPLY4_BYTES:
            return b"", None
        self._done = True
        self._buffer = b""
        self.trailing = buffer[_REPLY4_BYTES:]
        return b"", Bound(None, IPv4Address(buffer[4:8]), buffer[2] << 8 | buffer[3])


def _login(username: str, password: str) -> bytes:
    """VER (1), ULEN, UNAME, PLEN, PASSWD (RFC 1929 section 2)."""
    name, secret = write_credentials(username, password)
    return bytes((1, len(name))) + name + bytes((len(secret),)) + secret


def _user_id(user_id: str) -> bytes:
    try:
        raw = user_id.encode("latin-1")
    except UnicodeEncodeError:
        raise ProtocolError("bad_user_id", "the user id is not Latin-1") from None
    if b"\0" in raw or len(raw) > 255:
        raise ProtocolError("bad_user_id", f"the user id holds a NUL, or has {len(raw)} bytes, at most 255")
    return raw


def _refused(replies: type[Socks4Reply | Socks5Reply], code: int) -> ProtocolError:
    known = next((reply.name.lower().replace("_", " ") for reply in replies if reply == code), "unknown")
    return ProtocolError("upstream_refused", f"the proxy replied {code}: {known}", code=code)
