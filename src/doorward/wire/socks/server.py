"""The server role: what a client on the internal side says, and our answers.

One object per client connection, for every version; the first byte tells.

    version 5   greeting ─▶ MethodsOffered ─▶ select_method()
                [user and password ─▶ Credentials ─▶ credentials_reply()]
                request ─▶ Request ─▶ reply()
    version 4   request ─▶ Request ─▶ reply()

It must not know policy: it reads what was asked and writes what was answered.
After every event the caller answers before it feeds more. A client may send
ahead of our answers, so call `receive(b"")` after an answer, before reading.
Departures from the RFCs are refusals: reserved bytes must be zero, CONNECT
needs a port, a name must be visible ASCII.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final, TypeAlias

from doorward.wire.credentials import Credentials, read_credentials
from doorward.wire.errors import ProtocolError, WireError
from doorward.wire.socks.address import NAME_BYTES_MAX, read_address, read_name, write_address, write_port
from doorward.wire.socks.model import (
    Command,
    IPAddress,
    Method,
    MethodsOffered,
    Request,
    Socks4Reply,
    Socks5Reply,
)

Event: TypeAlias = MethodsOffered | Credentials | Request

USER_ID_BYTES_MAX: Final = 255  # the memo names no limit; every other field of SOCKS has this one

# Plain numbers: they are compared several times in every connection's handshake.
_START, _METHOD_DUE, _LOGIN, _LOGIN_DUE, _REQUEST, _DONE, _CLOSED = range(7)

_COMMANDS: Final = {int(command): command for command in Command}
_COMMANDS_4: Final = {1: Command.CONNECT, 2: Command.BIND}
_REPLY_FOR: Final = {
    "bad_command": Socks5Reply.COMMAND_NOT_SUPPORTED,
    "bad_address_type": Socks5Reply.ADDRESS_TYPE_NOT_SUPPORTED,
}
_NO_METHOD: Final = bytes((5, Method.NO_ACCEPTABLE))
_LOGIN_FAILED: Final = b"\x01\x01"


class ServerHandshake:
    """Reads one client's handshake.

    It holds at most one unfinished message (some 520 bytes) and what came in
    the same read behind it. `version` is 4 or 5, and 0 before the first byte.
    `trailing` is what the client sent behind its request: the first bytes of
    the tunnel, complete and in order, once `receive` has given a Request.
    """

    __slots__ = ("_buffer", "_offered", "_state", "trailing", "version")

    def __init__(self) -> None:
        self._state = _START
        self._buffer = b""
        self._offered = b""
        self.version = 0
        self.trailing = b""

    def receive(self, data: bytes) -> Event | None:
        """Take what was read, in pieces of any size; None: more bytes needed.

        Raises ProtocolError with the `reply` to send before closing; after
        that the handshake is over. Reasons: `socks_bad_version`, `no_methods`,
        `bad_command`, `bad_reserved`, `bad_address_type`, `bad_name`,
        `bad_port`, `bad_user_id`, `bad_credentials_form`.
        Raises WireError `misuse` if an answer is due, or none can follow.
        """
        buffer = self._buffer + data if self._buffer else data
        if not buffer:
            return None
        try:
            return self._read(buffer)
        except ProtocolError:
            self._state = _CLOSED
            self._buffer = b""
            raise

    def select_method(self, method: Method) -> bytes:
        """Answer MethodsOffered: one of the methods offered that we know, or NO_ACCEPTABLE, which ends it."""
        if self._state != _METHOD_DUE:
            raise WireError("misuse", "no methods were offered")
        if method == Method.NO_AUTHENTICATION:
            self._state = _REQUEST
        elif method == Method.USERNAME_PASSWORD:
            self._state = _LOGIN
        else:
            self._state = _CLOSED
            return _NO_METHOD
        if method not in self._offered:
            self._state = _CLOSED
            raise WireError("misuse", f"method {method} was not offered")
        return b"\x05\x02" if method else b"\x05\x00"

    def credentials_reply(self, accepted: bool) -> bytes:
        """Answer Credentials. After a refusal the caller must close (RFC 1929 section 2)."""
        if self._state != _LOGIN_DUE:
            raise WireError("misuse", "no credentials were given")
        self._state = _REQUEST if accepted else _CLOSED
        return b"\x01\x00" if accepted else _LOGIN_FAILED

    def reply(self, code: Socks5Reply, address: IPAddress | None = None, port: int = 0) -> bytes:
        """Answer Request, in the client's own version; BIND gets two of these.

        `address` and `port` are our end of the outer leg, or where we listen.
        Version 4 knows only yes and no, and an IPv6 address is zeros there.
        After a code other than SUCCEEDED the caller must close.
        """
        if self._state != _DONE:
            raise WireError("misuse", "no request to answer")
        if self.version == 5:
            return reply5(code, address, port)
        return _reply4(code == Socks5Reply.SUCCEEDED, address, port)

    def _read(self, buffer: bytes) -> Event | None:
        state = self._state
        if state == _REQUEST:
            return self._read_request5(buffer)
        if state == _START:
            self.version = version = buffer[0]
            if version == 5:
                return self._read_greeting(buffer)
            if version == 4:
                return self._read_request4(buffer)
            raise ProtocolError("socks_bad_version", f"version {version}, known are 4 and 5")
        if state == _LOGIN:
            return self._read_login(buffer)
        if state in (_METHOD_DUE, _LOGIN_DUE):
            raise WireError("misuse", "an answer is due before more is read")
        raise WireError("misuse", "the handshake is over")

    def _read_greeting(self, buffer: bytes) -> MethodsOffered | None:
        """VER, NMETHODS, METHODS (RFC 1928 section 3)."""
        size = len(buffer)
        if size >= 2 and not buffer[1]:
            raise ProtocolError("no_methods", "the greeting offers no method", reply=_NO_METHOD)
        if size < 2 or size < 2 + buffer[1]:
            self._buffer = buffer
            return None
        end = 2 + buffer[1]
        self._offered = offered = buffer[2:end]
        self._buffer = buffer[end:]
        self._state = _METHOD_DUE
        return MethodsOffered(offered)

    def _read_login(self, buffer: bytes) -> Credentials | None:
        """VER (1), ULEN, UNAME, PLEN, PASSWD (RFC 1929 section 2)."""
        if buffer[0] != 1:
            raise ProtocolError(
                "bad_credentials_form", f"login version {buffer[0]}, known is 1", reply=_LOGIN_FAILED
            )
        size = len(buffer)
        middle = 2 + buffer[1] if size > 1 else size
        end = middle + 1 + buffer[middle] if size > middle else size + 1
        if size < end:
            self._buffer = buffer
            return None
        try:
            found = read_credentials(buffer[2:middle], buffer[middle + 1 : end])
        except ProtocolError as error:
            error.reply = _LOGIN_FAILED
            raise
        self._buffer = buffer[end:]
        self._state = _LOGIN_DUE
        return found

    def _read_request5(self, buffer: bytes) -> Request | None:
        """VER, CMD, RSV, then the address (RFC 1928 section 4)."""
        try:
            found = _request5(buffer)
        except ProtocolError as error:
            code = _REPLY_FOR.get(error.reason, Socks5Reply.GENERAL_FAILURE)
            error.reply = reply5(code)
            raise
        return self._finish(buffer, found)

    def _read_request4(self, buffer: bytes) -> Request | None:
        """VN, CD, DSTPORT, DSTIP, USERID, NUL, and in 4a the name, NUL."""
        try:
            found = _request4(buffer)
        except ProtocolError as error:
            error.reply = _reply4(False, None, 0)
            raise
        return self._finish(buffer, found)

    def _finish(self, buffer: bytes, found: tuple[Request, int] | None) -> Request | None:
        if found is None:
            self._buffer = buffer
            return None
        request, end = found
        self.trailing = buffer[end:]
        self._buffer = b""
        self._state = _DONE
        return request


def read_request5(request: bytes) -> Request:
    """A whole request of version 5. Raises ProtocolError, also for one that is not whole."""
    found = _request5(request)
    if found is None or found[1] != len(request):
        raise ProtocolError("truncated", "the request is not whole")
    return found[0]


def reply5(code: Socks5Reply, address: IPAddress | None = None, port: int = 0) -> bytes:
    """Answer a request of version 5; see `ServerHandshake.reply`."""
    return bytes((5, code, 0)) + write_address(address, port)


def _request5(buffer: bytes) -> tuple[Request, int] | None:
    if len(buffer) < 4:
        return None
    if buffer[0] != 5:
        raise ProtocolError(
            "socks_bad_version", f"version {buffer[0]} in the request, after 5 in the greeting"
        )
    command = _COMMANDS.get(buffer[1])
    if command is None:
        raise ProtocolError("bad_command", f"command {buffer[1]}, known are 1, 2 and 3")
    if buffer[2]:
        raise ProtocolError("bad_reserved", f"the reserved byte is {buffer[2]}, not 0")
    found = read_address(buffer, 3)
    if found is None:
        return None
    host, address, port, end = found
    if not port and command is Command.CONNECT:
        raise ProtocolError("bad_port", "CONNECT to port 0")
    return Request(5, command, host, address, port), end


def _request4(buffer: bytes) -> tuple[Request, int] | None:
    if len(buffer) < 8:
        return None
    command = _COMMANDS_4.get(buffer[1])
    if command is None:
        raise ProtocolError("bad_command", f"command {buffer[1]}, known are 1 and 2")
    port = buffer[2] << 8 | buffer[3]
    if not port and command is Command.CONNECT:
        raise ProtocolError("bad_port", "CONNECT to port 0")
    end = _end_of_text(buffer, 8, USER_ID_BYTES_MAX, "bad_user_id")
    if end < 0:
        return None
    # Latin-1: whatever the client's alphabet is, nothing is lost and nothing is refused.
    user_id = buffer[8:end].decode("latin-1")
    # 0.0.0.x with x other than 0 cannot be a destination: version 4a marks with it that a name follows.
    if buffer[4:7] != b"\0\0\0" or not buffer[7]:
        return Request(4, command, None, IPv4Address(buffer[4:8]), port, user_id), end + 1
    begin = end + 1
    end = _end_of_text(buffer, begin, NAME_BYTES_MAX + 1, "bad_name")
    if end < 0:
        return None
    return Request(4, command, read_name(buffer[begin:end]), None, port, user_id), end + 1


def _end_of_text(buffer: bytes, begin: int, limit: int, reason: str) -> int:
    """Where the NUL stands that ends this field; -1: not here yet."""
    end = buffer.find(0, begin, begin + limit + 1)
    if end < 0 and len(buffer) > begin + limit:
        raise ProtocolError(reason, f"{limit + 1} bytes and no end, at most {limit}")
    return end


def _reply4(granted: bool, address: IPAddress | None, port: int) -> bytes:
    """VN (0), CD, DSTPORT, DSTIP."""
    packed = address.packed if isinstance(address, IPv4Address) else b"\0\0\0\0"
    code = Socks4Reply.GRANTED if granted else Socks4Reply.REJECTED
    return bytes((0, code)) + write_port(port) + packed
