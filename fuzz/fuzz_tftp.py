"""Feeds random and mutated bytes to the TFTP codec.

Promises: only documented errors come out; a request that was read, written from what was read, is the same but for
the case of words; what is a request is a packet as well. Stops with status 1 and the input at the first broken
promise; `--seed` repeats a run.

    python fuzz/fuzz_tftp.py --seconds 60
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from doorward.wire.errors import ProtocolError
from doorward.wire.tftp import Opcode, opcode_of, read_request

SEEDS = [
    b"\0\1pxelinux.0\0octet\0",
    b"\0\2a b/\xc3\xa9\0NetASCII\0blksize\0001468\0TSIZE\0000\0timeout\0002\0windowsize\00016\0",
    b"\0\1f\0octet\0multicast\0,\0",
    b"\0\3\0\1data",
    b"\0\4\0\0",
    b"\0\5\0\1File not found\0",
    b"\0\6tsize\00042\0",
]
PARTS = (b"\0", b"\0\0", b"\1", b"\2", b"\xff", b"octet", b"blksize", b"8", b"99999", b"\n", b"x" * 500)
T = TypeVar("T")
REQUEST_ERRORS = {"tftp_bad_request", "tftp_bad_option", "tftp_multicast"}


def outcome(read: Callable[[bytes], T], data: bytes) -> T | str:
    try:
        return read(data)
    except ProtocolError as error:
        return error.reason


def look_at(data: bytes) -> None:
    request, opcode = outcome(read_request, data), outcome(opcode_of, data)
    assert opcode in (*Opcode, "tftp_bad_packet"), opcode
    if isinstance(request, str):
        assert request in REQUEST_ERRORS, request
    else:
        texts = [request.file, request.mode.encode("ascii")]
        for name, value in request.options.items():
            texts += [name.encode("latin-1"), value]
        written = data[:2] + b"".join(text + b"\0" for text in texts)
        assert written.lower() == data.lower(), request
        assert opcode is (Opcode.WRITE if request.writes else Opcode.READ)


def mutate(rng: random.Random, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(3):
            case 0:
                data[at:at] = rng.choice(PARTS)
            case 1:
                del data[at : at + rng.randrange(1, 4)]
            case _:
                data[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - to be repeated, not to be secret
    end, count = time.monotonic() + options.seconds, 0
    while time.monotonic() < end:
        data = mutate(rng, rng.choice(SEEDS)) if rng.random() < 0.9 else rng.randbytes(rng.randrange(600))
        try:
            look_at(data)
        except Exception:
            traceback.print_exc()
            print(f"seed {options.seed}, input: {data.hex()}")
            return 1
        count += 1
    print(f"{count} inputs, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
