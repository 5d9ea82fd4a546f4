"""One question to the name servers of this machine, by datagram and, where the answer was cut short, by stream.

Bytes go in and come out; of an answer no more is read than says whether it belongs to the question. So that nobody
else can answer: a socket of its own for each question, connected to the server, from a port that the kernel draws, a
random identifier, and the question compared byte for byte (RFC 5452). The servers are those of resolv.conf(5), in
their order, three at most, each asked twice.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from doorward.api.errors import DoorwardError, LinkError, OutOfResources, Side, TimedOut, Unreachable
from doorward.net.seam import translate

SocketName: TypeAlias = tuple[str, int]

RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLV_CONF_BYTES_MAX: Final = 65_536
READ_AGAIN_S: Final = 5.0
SERVERS_MAX: Final = 3  # as the C library has it
ROUNDS: Final = 2  # a datagram may be lost
DNS_PORT: Final = 53

QUESTIONS_MAX: Final = 200
# What no honest answer needs, and few enough records to be read in a moment.
ANSWER_BYTES_MAX: Final = 8192
# Datagrams that are no answer to us before we listen no longer: somebody is guessing.
STRAYS_MAX: Final = 16

HEAD_BYTES: Final = 12
_ID_BYTES: Final = 2
_QR, _TC, _RCODE = 0x80, 0x02, 0x0F
_SERVER_FAILED: Final = frozenset({2, 5})  # SERVFAIL, REFUSED: another one may know


class Question(NamedTuple):
    """A query in wire form with one question right behind its head; `size` is that of head and question."""

    wire: bytes
    size: int


class Nameservers:
    """Asks. `servers` says whom; by default those of resolv.conf."""

    def __init__(self, servers: Callable[[], Sequence[SocketName]] | None = None) -> None:
        self._servers = servers or ResolvConf(RESOLV_CONF).servers
        self._asking = 0

    async def ask(self, question: Question, timeout_s: float) -> bytes:
        """The answer, under the question's own identifier, at most 8,192 bytes.

        Raises TimedOut, Unreachable (no server), OutOfResources (too many questions under way), LinkError kinds.
        After failure or cancellation no socket is left.
        """
        if self._asking >= QUESTIONS_MAX:
            raise OutOfResources("too many questions are under way", side=Side.OURS)
        servers = list(self._servers())[:SERVERS_MAX]
        if not servers:
            raise Unreachable("this machine has no name server", side=Side.OURS)
        self._asking += 1
        try:
            return await self._ask_each(servers * ROUNDS, question, timeout_s / (len(servers) * ROUNDS))
        finally:
            self._asking -= 1

    async def _ask_each(self, servers: Sequence[SocketName], question: Question, timeout_s: float) -> bytes:
        failure: DoorwardError | None = None
        said: bytes | None = None
        for server in servers:
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await _ask_one(server, question)
            except TimeoutError:
                failure = TimedOut("no answer from the name servers", side=Side.EXTERNAL)
            except OSError as error:
                failure = translate(error.errno, Side.EXTERNAL)
            except LinkError as error:
                failure = error
            else:
                if answer[3] & _RCODE not in _SERVER_FAILED:
                    return answer
                said = answer
        if said is not None:
            return said
        assert failure is not None, "there is a server to ask"
        raise failure


async def _ask_one(server: SocketName, question: Question) -> bytes:
    """By datagram, and by stream if there is more. Raises OSError, LinkError."""
    identifier = secrets.token_bytes(_ID_BYTES)
    asked = question._replace(wire=identifier + question.wire[_ID_BYTES:])
    answer = await _by_datagram(server, asked)
    if answer[2] & _TC:
        answer = await _by_stream(server, asked)
    return question.wire[:_ID_BYTES] + answer[_ID_BYTES:]


def answers(data: bytes, question: Question) -> bool:
    """Whether this is an answer to that: identifier, direction, opcode, and the question as it was asked."""
    return (
        len(data) >= question.size
        and data[:_ID_BYTES] == question.wire[:_ID_BYTES]
        and data[2] & 0xF8 == _QR
        and data[4:6] == b"\0\1"
        and data[HEAD_BYTES : question.size].lower() == question.wire[HEAD_BYTES : question.size].lower()
    )


def _socket(server: SocketName, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK)


async def _by_datagram(server: SocketName, question: Question) -> bytes:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_DGRAM) as sock:
        await loop.sock_connect(sock, server)
        await loop.sock_sendall(sock, question.wire)
        for _ in range(STRAYS_MAX):
            data = await loop.sock_recv(sock, ANSWER_BYTES_MAX)
            if answers(data, question):
                return data
    raise LinkError("datagrams that are no answer keep coming", side=Side.EXTERNAL)


async def _by_stream(server: SocketName, question: Question) -> bytes:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_STREAM) as sock:
        await loop.sock_connect(sock, server)
        await loop.sock_sendall(sock, len(question.wire).to_bytes(2) + question.wire)
        length = int.from_bytes(await _exactly(sock, 2))
        if not question.size <= length <= ANSWER_BYTES_MAX:
            raise LinkError(f"an answer of {length} bytes", side=Side.EXTERNAL)
        data = await _exactly(sock, length)
        if not answers(data, question):
            raise LinkError("an answer to another question", side=Side.EXTERNAL)
        return data


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more:
            raise LinkError("the answer ended early", side=Side.EXTERNAL)
        data += more
    return data


class ResolvConf:
    """The name servers of this machine, read again every few seconds. A file that cannot be read names none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: float | None = None
        self._servers: tuple[SocketName, ...] = ()

    def servers(self) -> tuple[SocketName, ...]:
        now = asyncio.get_running_loop().time()
        if self._read_at is None or now - self._read_at >= READ_AGAIN_S:
            self._read_at = now
            self._servers = _servers_in(self._path)
        return self._servers


def _servers_in(path: Path) -> tuple[SocketName, ...]:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            text = file.read(RESOLV_CONF_BYTES_MAX)
    except OSError:
        return ()
    found: list[SocketName] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found.append((words[1], DNS_PORT))
    return tuple(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
