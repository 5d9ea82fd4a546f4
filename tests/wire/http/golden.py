r"""Reads tests/golden/http/*.txt and writes down what a reader makes of the bytes.

A file holds cases, each headed by `== what must hold`. Lines beginning with `> ` are bytes, with \r\n, \t and
\xNN written out and nothing added; the other lines are the expected outcome, one event each.
`for METHOD [upgrade] [expect] [1.0]` names the request that a response answers; `then eof` closes the
connection after the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import Data, End, Headers, Request, RequestEvent, Response, ResponseEvent
from doorward.wire.http.reader import RequestReader
from doorward.wire.http.response_reader import ResponseReader

FOLDER = Path(__file__).parents[2] / "golden" / "http"


@dataclass
class Case:
    name: str
    sent: bytes = b""
    expected: list[str] = field(default_factory=list)
    request_words: list[str] = field(default_factory=list)
    eof: bool = False


def load(pattern: str) -> list[Case]:
    """All cases of the files whose names match."""
    return [case for path in sorted(FOLDER.glob(pattern)) for case in _cases(path)]


def _cases(path: Path) -> list[Case]:
    cases: list[Case] = []
    for line in path.read_text().splitlines():
        if line.startswith("== "):
            cases.append(Case(f"{path.stem}: {line[3:]}"))
        elif line.startswith("> "):
            cases[-1].sent += line[2:].encode().decode("unicode_escape").encode("latin-1")
        elif line.startswith("for "):
            cases[-1].request_words = line.split()[1:]
        elif line == "then eof":
            cases[-1].eof = True
        elif line and not line.startswith("#"):
            cases[-1].expected.append(line)
    return cases


def request_for(words: list[str]) -> Request:
    """A request as the client would have sent it, for a response to answer."""
    method, *flags = words or ["GET"]
    version = "1.0" if "1.0" in flags else "1.1"
    head = f"{method} http://a.test/ HTTP/{version}\r\nHost: a.test\r\n"
    if "upgrade" in flags:
        head += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    if "expect" in flags:
        head += "Expect: 100-continue\r\n"
    request = RequestReader().receive(f"{head}\r\n".encode())[0]
    assert isinstance(request, Request)
    return request


def request_outcome(sent: bytes, step: int) -> list[str]:
    """Feed `step` bytes at a time; every complete request is accepted, and its bytes taken if it switches."""
    reader = RequestReader()
    log = Log()
    try:
        for at in range(0, len(sent), step):
            events = reader.receive(sent[at : at + step])
            log.add(events)
            while events and isinstance(events[-1], End) and not log.switched:
                events = reader.next_request()
                log.add(events)
        if log.switched:
            log.finished().append(f"tunnel {reader.switch()!r}")
        elif not reader.idle:
            log.finished().append("waiting")
    except HttpError as error:
        return [*log.finished(), f"refused {error.status} {error.reason}"]
    return log.finished()


def response_outcome(case: Case, step: int) -> list[str]:
    reader = ResponseReader(request_for(case.request_words))
    log = Log()
    try:
        for at in range(0, len(case.sent), step):
            log.add(reader.receive(case.sent[at : at + step]))
        if case.eof:
            log.add(reader.eof())
    except HttpError as error:
        return [*log.finished(), f"refused {error.status} {error.reason}"]
    if log.switched:
        return [*log.finished(), f"tunnel {reader.switch()!r}"]
    return [*log.finished(), "reusable" if reader.reusable else "ended" if reader.ended else "waiting"]


class Log:
    """One line for an event; neighbouring pieces of a body are one line, because how they were cut says nothing."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.switched = False
        self._data = b""

    def add(self, events: list[RequestEvent] | list[ResponseEvent]) -> None:
        for event in events:
            if isinstance(event, Data):
                assert event.data
                self._data += event.data
                continue
            self.finished()
            if isinstance(event, End):
                self.lines.append(" ".join(["end", *_trailer_words(event.trailers)]))
            else:
                self.lines.append(_head_line(event))
                connect = isinstance(event, Request) and event.is_connect
                upgrade = isinstance(event, Request) and event.upgrade is not None
                self.switched = connect or upgrade or (isinstance(event, Response) and event.status == 101)

    def finished(self) -> list[str]:
        if self._data:
            self.lines.append(f"data {self._data!r}")
            self._data = b""
        return self.lines


def _head_line(head: Request | Response) -> str:
    kind, length = head.framing
    framing = f"length={length}" if kind == "length" else kind
    if isinstance(head, Response):
        return f"response {head.status} {framing}"
    flags = [name for name in ("expect_continue", "upgrade") if getattr(head, name)]
    if not head.keep_alive:
        flags.append("close")
    path = head.path.decode()
    return " ".join(["request", head.method, head.host, str(head.port), path or "-", framing, *flags])


def _trailer_words(trailers: Headers) -> list[str]:
    return [f"{name.decode()}={value.decode('latin-1')}" for name, value in trailers]
