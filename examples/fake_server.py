"""A web server and a mail server that do not exist: this filter is them. Nothing leaves the machine, not even a name.

    [[filter]]
    name = "fake-servers"
    use = "fake_server.py"
    settings = { names = ["shop.example", "mail.example"], page = "closed today" }

Three calls make a server out of nothing. `on_resolve` gives the names an address; policy judges it like any other.
`on_connect` claims the connection with `emulate_for_connect`: nothing is dialled, and the client is told that it is
connected. The data filter's `pump` then gets `external=None`, and is the server until it returns.

Port 80 answers every request for a page with the same page. Port 25 takes mail (RFC 5321, the commands that a plain
client uses), delivers it nowhere, and tells the operational log from whom and to whom it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doorward.api import (
    ApplicationFilter,
    ConnectEvent,
    Connection,
    DataFilter,
    EventKind,
    Firewall,
    Interest,
    Refuse,
    ResolveEvent,
    Session,
    SessionFilter,
    Socket,
)

# Of a range set aside for documentation (RFC 5737): nobody is there.
ADDRESS = "192.0.2.80"
LINE_BYTES_MAX = 1_000
HEAD_BYTES_MAX = 16_384
MAIL_BYTES_MAX = 1_000_000
RECIPIENTS_MAX = 100


class FakeServers(ApplicationFilter):
    """The servers of the setting `names`."""

    interest = Interest.of("tcp/80", "tcp/25", events=[EventKind.RESOLVE, EventKind.CONNECT])

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.names = frozenset(self.settings.get("names", ["fake.example"]))
        self.page = str(self.settings.get("page", "there is nobody here")).encode()
        self.firewall: Firewall | None = None

    async def start(self, firewall: Firewall) -> None:
        self.firewall = firewall

    def session_filter(self, session: Session) -> SessionFilter:
        return Pretend(self)

    def mail_came(self, sender: str, recipients: list[str], size: int) -> None:
        """For the operational log."""
        assert self.firewall is not None
        self.firewall.log("mail", sender=sender, recipients=", ".join(recipients), bytes=size)


class Pretend(SessionFilter):
    def __init__(self, servers: FakeServers) -> None:
        self.servers = servers

    async def on_resolve(self, event: ResolveEvent) -> None:
        if event.before and event.name in self.servers.names:
            event.set_result(ADDRESS)

    async def on_connect(self, event: ConnectEvent) -> None:
        if event.host in self.servers.names:
            server = FakeWeb(self.servers.page) if event.port == 80 else FakeMail(self.servers)
            event.connection.emulate_for_connect(server)


class Lines:
    """A client's lines, without their ends. `b""` is an empty one, None the end of the stream."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.kept = b""

    async def next(self) -> bytes | None:
        while b"\n" not in self.kept:
            if len(self.kept) > LINE_BYTES_MAX:
                raise Refuse("line_too_long")
            data = await self.socket.recv(LINE_BYTES_MAX)
            if not data:
                return None
            self.kept += data
        line, _, self.kept = self.kept.partition(b"\n")
        return line.removesuffix(b"\r")


class FakeWeb(DataFilter):
    """Any GET or HEAD is answered with one page, as often as the client likes."""

    def __init__(self, page: bytes) -> None:
        self.page = page

    async def pump(self, internal: Socket, external: None, connection: Connection) -> None:
        lines = Lines(internal)
        while (request := await lines.next()) is not None:
            size = len(request)
            while field := await lines.next():
                size += len(field)
                if size > HEAD_BYTES_MAX:
                    raise Refuse("head_too_long")
            if request.startswith((b"GET ", b"HEAD ")):
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
                body = self.page if request.startswith(b"GET ") else b""
                await internal.send(head % len(self.page) + body)
            else:  # it may have a body, which nobody here can read
                await internal.send(
                    b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                return


class FakeMail(DataFilter):
    """Takes one mail after another."""

    def __init__(self, servers: FakeServers) -> None:
        self.servers = servers
        self.sender = ""
        self.recipients: list[str] = []

    async def pump(self, internal: Socket, external: None, connection: Connection) -> None:
        lines = Lines(internal)
        await internal.send(b"220 nobody is here\r\n")
        while (line := await lines.next()) is not None:
            answer = self.answer(line)
            await internal.send(answer)
            if answer.startswith(b"354"):
                size = await self.take_mail(lines)
                self.servers.mail_came(self.sender, self.recipients, size)
                self.sender, self.recipients = "", []
                await internal.send(b"250 thrown away\r\n")
            elif answer.startswith(b"221"):
                return

    def answer(self, line: bytes) -> bytes:
        """What one command is told."""
        verb, _, argument = line.partition(b" ")
        match verb.upper():
            case b"HELO" | b"EHLO" | b"NOOP":
                return b"250 hello\r\n"
            case b"RSET":
                self.sender, self.recipients = "", []
                return b"250 forgotten\r\n"
            case b"MAIL":
                self.sender = _address(argument)
                return b"250 go on\r\n"
            case b"RCPT" if self.sender and len(self.recipients) < RECIPIENTS_MAX:
                self.recipients.append(_address(argument))
                return b"250 go on\r\n"
            case b"DATA" if self.recipients:
                return b"354 end with a dot\r\n"
            case b"RCPT" | b"DATA":
                return b"503 not now\r\n"
            case b"QUIT":
                return b"221 good bye\r\n"
        return b"500 what?\r\n"

    async def take_mail(self, lines: Lines) -> int:
        """Up to the lone dot; its size."""
        size = 0
        while (line := await lines.next()) != b".":
            if line is None:
                raise Refuse("mail_cut_off")
            size += len(line) + 2
            if size > MAIL_BYTES_MAX:
                raise Refuse("mail_too_long")
        return size


def _address(argument: bytes) -> str:
    """`FROM:<kim@example.org> SIZE=7` without its trimmings."""
    return argument.partition(b"<")[2].partition(b">")[0].decode("ascii", "replace")
