"""Feeds random and mutated bytes to the SOCKS codecs, the Basic parser and `printable`.

Two promises are tested: only documented errors come out, and input in pieces means what the whole input
means. Stops with status 1 and the input at the first broken promise; `--seed` repeats a run.

    python fuzz/fuzz_socks.py --seconds 60
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from doorward.wire.basic import parse_basic
from doorward.wire.credentials import Credentials
from doorward.wire.errors import ProtocolError
from doorward.wire.printable import printable
from doorward.wire.socks import (
    Method,
    MethodsOffered,
    Request,
    ServerHandshake,
    Socks4Client,
    Socks5Client,
    Socks5Reply,
    read_datagram,
)

SEEDS = [
    b"\x05\x01\x00\x05\x01\x00\x03\x0bexample.org\x01\xbbtunnel",
    b"\x05\x02\x00\x02\x01\x03kim\x06secret\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50",
    b"\x05\x01\x00\x05\x03\x00\x04" + bytes(15) + b"\x01\x00\x35",
    b"\x04\x01\x00\x50\xc0\x00\x02\x01kim\x00tunnel",
    b"\x04\x01\x00\x50\x00\x00\x00\x01kim\x00example.org\x00",
    b"\x05\x00\x05\x00\x00\x01\xc0\x00\x02\x09\x10\x01tunnel",
    b"\x05\x02\x01\x00\x05\x00\x00\x03\x01a\x00\x50",
    b"\x00\x5a\x10\x01\xc0\x00\x02\x09tunnel",
    b"\x00\x00\x00\x03\x01a\x00\x35query",
    b"Basic a2ltOnNlY3JldA==",
]


def serve(pieces: list[bytes]) -> object:
    handshake = ServerHandshake()
    events: list[object] = []
    for index, piece in enumerate(pieces):
        event = handshake.receive(piece)
        while event is not None:
            events.append(event)
            if isinstance(event, Request):
                handshake.reply(Socks5Reply.SUCCEEDED, event.address, event.port)
                return events, handshake.trailing + b"".join(pieces[index + 1 :])
            if isinstance(event, MethodsOffered):
                login = Method.USERNAME_PASSWORD in event.methods
                if not login and Method.NO_AUTHENTICATION not in event.methods:
                    return events
                handshake.select_method(Method.USERNAME_PASSWORD if login else Method.NO_AUTHENTICATION)
            if isinstance(event, Credentials):
                handshake.credentials_reply(True)
            event = handshake.receive(b"")
    return events


def ask(client: Socks4Client | Socks5Client, pieces: list[bytes]) -> object:
    sent = client.start()
    for index, piece in enumerate(pieces):
        more, bound = client.receive(piece)
        sent += more
        if bound is not None:
            return sent, bound, client.trailing + b"".join(pieces[index + 1 :])
    return sent


def show(pieces: list[bytes]) -> object:
    shown = printable(b"".join(pieces))
    assert shown.isprintable(), shown
    return shown


TARGETS: dict[str, Callable[[list[bytes]], object]] = {
    "server": serve,
    "client 5": lambda pieces: ask(Socks5Client("example.org", 80, username="kim", password="x"), pieces),  # noqa: S106 - made up
    "client 4": lambda pieces: ask(Socks4Client("example.org", 80), pieces),
    "datagram": lambda pieces: read_datagram(b"".join(pieces)),
    "basic": lambda pieces: parse_basic(b"".join(pieces)),
    "printable": show,
}


def outcome(target: Callable[[list[bytes]], object], pieces: list[bytes]) -> object:
    """What came of it; anything but ProtocolError goes up and ends the run."""
    try:
        return target(pieces)
    except ProtocolError as error:
        return error.reason, error.detail, error.reply, error.code


def mutate(chance: random.Random) -> bytes:
    data = bytearray(
        chance.choice(SEEDS) if chance.random() < 0.9 else chance.randbytes(chance.randrange(700))
    )
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            data[place : place + 1] = bytes(
                [chance.choice((0, 1, 3, 4, 5, 127, 253, 254, 255, chance.randrange(256)))]
            )
        elif kind == 1:
            del data[place : place + chance.randrange(1, 9)]
        elif kind == 2:
            data[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 3:
            data[place:place] = chance.choice((b"a", b"\0", b"\xff")) * chance.choice(
                (1, 253, 254, 255, 256, 600)
            )
        else:
            data[place:] = chance.choice(SEEDS)
    return bytes(data)


def cut(chance: random.Random, data: bytes) -> list[bytes]:
    if chance.random() < 0.5:
        return [data[i : i + 1] for i in range(len(data))]
    ends = [*sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(5))), len(data)]
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    chance = random.Random(options.seed)  # noqa: S311 - reproducible on purpose
    until = time.monotonic() + options.seconds
    runs = 0
    while time.monotonic() < until:
        data = mutate(chance)
        pieces = cut(chance, data)
        for name, target in TARGETS.items():
            runs += 1
            try:
                whole, parts = outcome(target, [data]), outcome(target, pieces)
            except Exception:
                traceback.print_exc()
                print(f"{name}: seed {options.seed}, input {data!r}")
                return 1
            if whole != parts:
                print(f"{name}: seed {options.seed}, input {data!r}")
                print(f"whole {whole!r}\nparts {parts!r} of {pieces!r}")
                return 1
    print(f"{runs} runs, nothing found, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
