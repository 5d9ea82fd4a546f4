"""Feeds random and mutated bytes to the reader of PROXY headers.

Three promises are tested: only documented errors come out, a header that arrives in pieces means what the whole one
means, and what was read can be written and read again. Stops with status 1 and the input at the first broken promise;
`--seed` repeats a run.

    python fuzz/fuzz_proxy_protocol.py --seconds 60
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from doorward.wire.errors import ProtocolError
from doorward.wire.proxy_protocol import HEADER_BYTES_MAX, SIGNATURE, Header, read_header, write_binary

SEEDS = [
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET",
    b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 0 65535\r\n",
    b"PROXY UNKNOWN whatever \xff\r\n",
    SIGNATURE + b"\x20\x00\x00\x00rest",
    SIGNATURE + b"\x21\x11\x00\x0c\xc0\xa8\x00\x01\xc0\xa8\x00\x0b\xdc\x04\x01\xbb",
    SIGNATURE + b"\x21\x21\x00\x24" + bytes(36),
    SIGNATURE + b"\x21\x31\x00\xdb" + bytes(216) + b"\x04\x00\x00",
    SIGNATURE + b"\x21\x11\x00\x1a" + bytes(12) + b"\x03\x00\x04\x00\x00\x00\x00\x02\x00\x04host",
]


def read(pieces: list[bytes]) -> Header | tuple[str, str] | None:
    """As whoever receives pieces would: until there is an answer."""
    data = b""
    for piece in pieces:
        data += piece
        try:
            found = read_header(data)
        except ProtocolError as error:
            return error.reason, error.detail
        if found is not None:
            return found
    assert len(data) < HEADER_BYTES_MAX, "it waits for more than there can be"
    return None


def write_again(found: object) -> None:
    """A header that says whom it is about can be passed on."""
    if isinstance(found, Header) and found.source and found.destination:
        assert found.transport is not None
        written = write_binary(found.source, found.destination, found.transport, found.tlvs, checksum=True)
        again = read_header(written)
        assert again is not None
        assert (again.source, again.destination, again.tlvs) == (found.source, found.destination, found.tlvs)


def mutate(chance: random.Random) -> bytes:
    data = bytearray(
        chance.choice(SEEDS) if chance.random() < 0.95 else chance.randbytes(chance.randrange(300))
    )
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            data[place : place + 1] = bytes(
                [chance.choice((0, 1, 3, 4, 10, 13, 32, 48, 255, chance.randrange(256)))]
            )
        elif kind == 1:
            del data[place : place + chance.randrange(1, 9)]
        elif kind == 2:
            data[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 3:
            data[place:place] = chance.choice((b" ", b"1", b":", b"\0")) * chance.choice(
                (1, 2, 90, 250, 5000)
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
        runs += 1
        try:
            whole, parts = read([data]), read(pieces)
            write_again(whole)
        except Exception:
            traceback.print_exc()
            print(f"seed {options.seed}, input {data!r}")
            return 1
        if whole != parts:
            print(f"seed {options.seed}, input {data!r}")
            print(f"whole {whole!r}\nparts {parts!r} of {pieces!r}")
            return 1
    print(f"{runs} runs, nothing found, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
