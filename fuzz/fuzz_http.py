"""Throws mutated and random bytes at the HTTP readers, with h11 as a second opinion.

PYTHONPATH=src:. python fuzz/fuzz_http.py --seconds 30 [--seed 1]

Promises checked on every input: nothing but HttpError is raised; whole input equals input in pieces; what we
accept h11 accepts too, with the same method, host, path, fields, body and trailers; and what we would write for
it is, to h11, one message with the same body and nothing behind it. Seeds are the golden conversations. Prints
the input that broke a promise, and fails.

Known differences, allowed for below: h11 lower-cases field names and the coding, and refuses the empty line
before a request that RFC 9112 2.2 asks servers to skip.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import h11
from tests.wire.http import golden

from doorward.wire.http.authority import parse_authority
from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import Data, End, Headers, Request, RequestEvent, Response, ResponseEvent
from doorward.wire.http.reader import RequestReader
from doorward.wire.http.response_reader import ResponseReader
from doorward.wire.http.writer import body, body_end, request_head, response_framing, response_head

PIECES = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b"\x0b", b":", b",", b";", b"@", b"#", b"?", b"\xff",
    b"0\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"-1", b"+1", b"0x1",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"chunked", b"Host: a.test\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"POST ", b"HEAD ", b"CONNECT ",
    b"http://", b"a.test",
)  # fmt: skip
INPUT_BYTES_MAX = 4_096


class Message(NamedTuple):
    """What a reader made of the first message: its head, its body, and its trailers; None if it did not end."""

    head: Request | Response
    data: bytes
    trailers: Headers | None


class Broken(AssertionError):
    """A promise does not hold."""


def read_request(sent: bytes, cuts: list[int]) -> Message | str | None:
    """The first request, the reason of its refusal, or None if the head is not whole."""
    reader = RequestReader()
    events: list[RequestEvent] = []
    try:
        for piece in split(sent, cuts):
            events += reader.receive(piece)
            if events and (isinstance(events[-1], End) or reader.paused):
                break
    except HttpError as error:
        return error.reason
    return message(events)


def read_response(sent: bytes, cuts: list[int], request: Request) -> Message | str | None:
    reader = ResponseReader(request)
    events: list[ResponseEvent] = []
    try:
        for piece in split(sent, cuts):
            events += reader.receive(piece)
        events += reader.eof()
    except HttpError as error:
        return error.reason
    return message([event for event in events if not (isinstance(event, Response) and event.is_interim)])


def split(sent: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *cuts, len(sent)]
    return [sent[start:end] for start, end in pairwise(edges) if end > start]


def message(
    events: list[RequestEvent] | list[ResponseEvent] | list[Request | Response | Data | End],
) -> Message | None:
    if not events:
        return None
    head, *rest = events
    if isinstance(head, Data | End):
        raise Broken("a body came before its head")
    data = b"".join(event.data for event in rest if isinstance(event, Data))
    trailers = rest[-1].trailers if rest and isinstance(rest[-1], End) else None
    return Message(head, data, trailers)


def check_request(sent: bytes, cuts: list[int]) -> None:
    whole = read_request(sent, [])
    pieces = read_request(sent, cuts)
    if whole != pieces:
        raise Broken(f"whole: {whole}\npieces: {pieces}")
    if not isinstance(whole, Message) or not isinstance(whole.head, Request):
        return
    request = whole.head
    theirs = oracle(h11.SERVER, sent.removeprefix(b"\r\n"), request)
    compare_request(request, whole, theirs)
    if whole.trailers is None or request.is_connect:
        return
    written = (
        request_head(request) + body(request.framing, whole.data) + body_end(request.framing, whole.trailers)
    )
    again = oracle(h11.SERVER, written, request)
    if again.data != whole.data or not again.ended or again.trailing:
        raise Broken(f"written anew: {written!r} reads as {again}")
    if again.method != request.method.encode() or again.target != request.path:
        raise Broken(f"written anew: {again.method!r} {again.target!r}")


def check_response(sent: bytes, cuts: list[int], request: Request) -> None:
    whole = read_response(sent, [], request)
    pieces = read_response(sent, cuts, request)
    if whole != pieces:
        raise Broken(f"whole: {whole}\npieces: {pieces}")
    if not isinstance(whole, Message) or not isinstance(whole.head, Response) or whole.head.status == 101:
        return
    response = whole.head
    theirs = oracle(h11.CLIENT, sent, request)
    if (theirs.status, theirs.data, theirs.ended) != (
        response.status,
        whole.data,
        whole.trailers is not None,
    ):
        raise Broken(f"ours: {whole}\nh11: {theirs}")
    framing = response_framing(response, request)
    head = response_head(response, request, keep_alive=True)
    written = head + body(framing, whole.data) + body_end(framing, whole.trailers or ())
    again = oracle(h11.CLIENT, written, request)
    if (again.status, again.data, again.ended, again.trailing) != (response.status, whole.data, True, b""):
        raise Broken(f"written anew: {written!r} reads as {again}")


class Theirs(NamedTuple):
    """What h11 made of the first message."""

    method: bytes
    target: bytes
    status: int
    fields: list[tuple[bytes, bytes]]
    data: bytes
    trailers: list[tuple[bytes, bytes]]
    ended: bool
    trailing: bytes


def oracle(role: type[h11.SERVER | h11.CLIENT], sent: bytes, request: Request) -> Theirs:
    """h11 must accept it; its refusal is a broken promise of ours."""
    connection = h11.Connection(role, max_incomplete_event_size=200_000)
    if role is h11.CLIENT:
        connection.send(h11.Request(method=request.method, target=b"/", headers=[(b"Host", b"a.test")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(sent)
    if role is h11.CLIENT:
        connection.receive_data(b"")
    method = target = data = b""
    status = 0
    fields: list[tuple[bytes, bytes]] = []
    trailers: list[tuple[bytes, bytes]] = []
    ended = False
    while not ended:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise Broken(f"h11 refuses it: {error}") from None
        if isinstance(event, h11.Request):
            method, target, fields = event.method, event.target, list(event.headers)
        elif isinstance(event, h11.Response):
            status, fields = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            data += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            ended, trailers = True, list(event.headers)
        elif not isinstance(event, h11.InformationalResponse):
            break
    return Theirs(method, target, status, fields, data, trailers, ended, connection.trailing_data[0])


def compare_request(request: Request, ours: Message, theirs: Theirs) -> None:
    fields = [(name.lower(), value) for name, value in request.headers]
    # h11 hands the one coding out in lower case, and adds no field of its own.
    fields = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]
    if theirs.method != request.method.encode() or theirs.fields != fields:
        raise Broken(f"ours: {request}\nh11: {theirs}")
    if request.is_connect:
        authority = parse_authority(theirs.target)
        path = b""
    else:
        text, slash, path = theirs.target[7:].partition(b"/")
        text, query, rest = text.partition(b"?")
        path = (b"/" + path if slash else b"") if not query else b"/?" + rest + slash + path
        authority = parse_authority(text)
    if (authority.host, authority.port or 80) != (request.host, request.port):
        raise Broken(f"ours: {request}\nh11: {theirs}")
    if path != request.path and (path or request.path not in (b"/", b"*")):
        raise Broken(f"ours: {request}\nh11: {theirs}")
    if request.is_connect:
        return
    trailers = [(name.lower(), value) for name, value in ours.trailers or ()]
    if (ours.data, ours.trailers is not None, trailers) != (theirs.data, theirs.ended, theirs.trailers):
        raise Broken(f"ours: {ours}\nh11: {theirs}")


def mutate(random_: random.Random, seed: bytes, other: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(random_.choice((0, 1, 1, 1, 2, 3, 8))):
        at = random_.randint(0, len(data))
        kind = random_.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] = random_.randrange(256)
        elif kind == 1:
            data[at:at] = random_.choice(PIECES)
        elif kind == 2:
            del data[at : at + random_.randint(1, 8)]
        elif kind == 3:
            end = at + random_.randint(1, 40)
            data[at:at] = data[at:end]
        elif kind == 4:
            data[at:] = other[random_.randint(0, len(other)) :]
        else:
            del data[at:]
    return bytes(data[:INPUT_BYTES_MAX])


def run(seconds: float, seed: int, clock: Callable[[], float] = time.monotonic) -> int:
    """Returns how many inputs were tried.

    Raises Broken, or whatever the readers wrongly raised, with the input noted.
    """
    random_ = random.Random(seed)  # noqa: S311  reproducible is what counts here
    requests = [case.sent for case in golden.load("request_*.txt")]
    responses = [case.sent for case in golden.load("response*.txt") if case.sent]
    asked = [
        golden.request_for(words.split())
        for words in ("GET", "HEAD", "GET 1.0", "POST expect", "GET upgrade")
    ]
    deadline = clock() + seconds
    tried = 0
    while clock() < deadline:
        pool = requests if tried % 2 else responses
        sent = mutate(random_, random_.choice(pool), random_.choice(pool))
        if tried % 50 == 0:
            sent = random_.randbytes(random_.randint(0, 200))
        cuts = sorted(random_.randrange(len(sent) + 1) for _ in range(random_.randint(1, 5)))
        if random_.random() < 0.2:
            cuts = list(range(1, len(sent)))
        tried += 1
        try:
            if pool is requests:
                check_request(sent, cuts)
            else:
                check_response(sent, cuts, random_.choice(asked))
        except Exception as error:
            error.add_note(f"input: {sent!r}\ncuts: {cuts}")
            raise
    return tried


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tried = run(arguments.seconds, arguments.seed)
    print(f"http: {tried} inputs, every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
