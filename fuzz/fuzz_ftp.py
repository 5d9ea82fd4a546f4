"""Feeds random and mutated bytes to the FTP codecs.

Promises: only documented errors come out; input in pieces means what the whole input means; what is written is read
as the same, and has no second line in it; an address that was read is written as one that reads the same. Stops with
status 1 and the input at the first broken promise; `--seed` repeats a run.

    python fuzz/fuzz_ftp.py --seconds 60
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

from doorward.wire.errors import ProtocolError
from doorward.wire.ftp import (
    Command,
    CommandReader,
    Endpoint,
    Reply,
    ReplyReader,
    eprt_command,
    extended_passive_reply,
    passive_reply,
    port_command,
    read_eprt,
    read_extended_passive,
    read_passive,
    read_port,
)

SEEDS = [
    b"USER kim\r\nPASS secret\r\nTYPE I\r\nPASV\r\nRETR a b\r\nQUIT\r\n",
    b"PORT 192,0,2,1,24,131\r\nSTOR \xc3\xa9\xff\r\nEPRT |1|192.0.2.1|6275|\r\nEPRT |2|2001:db8::1|6275|\r\n",
    b"\xff\xf4\xff\xf2ABOR\r\nEPSV ALL\r\nAUTH TLS\r\nSITE CHMOD 777 a\r\n",
    b"NOOP\nQUIT\n",
    b"220-Hello\r\n220-this\r\n 220 is\r\n226 not the end\r\n220 ready\r\n331 go on\r\n230\r\n",
    b"227 Entering Passive Mode (192,0,2,1,24,131).\r\n229 Go (|||6446|)\r\n150 a\r\n226 b\r\n",
    b"211-Features:\r\n MDTM\r\n211 End\r\n421 bye\r\n",
    b"192,0,2,1,24,131",
    b"|2|2001:db8::1|6275|",
    b"(|||6446|)",
]
PARTS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b" ",
    b"-",
    b",",
    b"|",
    b"0",
    b"65536",
    b"999",
    b"227 ",
    b"220-",
    b"x" * 4100,
)


def commands(pieces: list[bytes]) -> object:
    reader = CommandReader()
    found: list[Command] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (command := reader.next()) is not None:
                assert command.wire.count(b"\r") == command.wire.count(b"\n") == 1, command
                found.append(command)
    except ProtocolError as error:
        return found, error.reason
    again = CommandReader()
    again.feed(b"".join(command.wire for command in found))
    assert [again.next() for _ in found] == found
    return found


def replies(pieces: list[bytes]) -> object:
    reader = ReplyReader()
    found: list[Reply] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (reply := reader.next()) is not None:
                found.append(reply)
    except ProtocolError as error:
        return found, error.reason
    again = ReplyReader()
    again.feed(b"".join(reply.wire for reply in found))
    assert [reply.code for reply in (again.next() for _ in found) if reply] == [reply.code for reply in found]
    return found


def port(pieces: list[bytes]) -> object:
    endpoint = read_port(b"".join(pieces))
    assert read_port(port_command(endpoint).argument) == endpoint
    return endpoint


def eprt(pieces: list[bytes]) -> object:
    endpoint = read_eprt(b"".join(pieces))
    assert read_eprt(eprt_command(endpoint).argument) == endpoint
    return endpoint


def passive(pieces: list[bytes]) -> object:
    endpoint = read_passive(b"".join(pieces))
    assert read_passive(passive_reply(endpoint).text) == endpoint
    return endpoint


def extended(pieces: list[bytes]) -> object:
    found = read_extended_passive(b"".join(pieces))
    assert read_extended_passive(extended_passive_reply(found).text) == found
    return found


TARGETS: dict[str, Callable[[list[bytes]], object]] = {
    "commands": commands,
    "replies": replies,
    "PORT": port,
    "EPRT": eprt,
    "227": passive,
    "229": extended,
}


def outcome(target: Callable[[list[bytes]], object], pieces: list[bytes]) -> object:
    """What came of it; anything but ProtocolError goes up and ends the run."""
    try:
        found = target(pieces)
    except ProtocolError as error:
        return error.reason, error.detail
    assert not isinstance(found, Endpoint) or 0 < found.port < 65536, found
    return found


def mutate(chance: random.Random) -> bytes:
    data = bytearray(
        chance.choice(SEEDS) if chance.random() < 0.9 else chance.randbytes(chance.randrange(700))
    )
    for _ in range(chance.randrange(5)):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            data[place : place + 1] = chance.randbytes(1)
        elif kind == 1:
            del data[place : place + chance.randrange(1, 9)]
        elif kind == 2:
            data[place:place] = chance.choice(PARTS)
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
