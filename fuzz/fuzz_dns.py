"""Feeds random and mutated bytes to the DNS codec: as queries, as name servers' answers, and as a stream.

Promises: only documented errors come out; whatever is replied can be read again, keeps the identifier, is an answer,
and is no longer than its sender takes; a reply never calls for another reply; a stream gives the same messages however
it was cut. Stops with status 1 and the input at the first broken promise; `--seed` repeats a run.

    python fuzz/fuzz_dns.py --seconds 60
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from ipaddress import ip_address
from pathlib import Path

import dns.message

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from doorward.engine.names.message import (
    DATAGRAM_BYTES_MAX,
    NXDOMAIN,
    PLAIN_BYTES_MAX,
    QUERY_BYTES_MAX,
    BadMessage,
    Extended,
    Query,
    read_query,
)
from doorward.net.nameservers import answers
from doorward.wire.dns_stream import MessageReader, framed
from doorward.wire.errors import ProtocolError

HEAD = bytes.fromhex("1234 0100 0001 0000 0000 0000")
NAME = b"\x03WWW\x07example\x03org\0"
OPT = bytes.fromhex("00 0029 04d0 00 00 8000 000c 000a 0008 0102030405060708")
QUERIES = [
    *(HEAD + NAME + kind.to_bytes(2) + b"\0\1" for kind in (1, 28, 12, 15, 16, 33, 64, 65, 252, 255)),
    HEAD[:10] + b"\0\1" + NAME + b"\0\1\0\1" + OPT,
    HEAD + b"\x017\x012\x010\x03192\x07in-addr\x04arpa\0\0\x0c\0\1",
    HEAD + b"\0\0\2\0\1",
    HEAD + (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\0\0\1\0\1",
]
SAID = bytes.fromhex("1234 8180 0001 0003 0001 0001") + NAME + b"\0\x0f\0\1"
ANSWERS = [
    SAID
    + bytes.fromhex("c00c 0005 0001 0000003c 0007 046d61696c c010")
    + bytes.fromhex("c00c 000f 0001 0000003c 0008 000a 036d7831 c010")
    + bytes.fromhex("c00c 0001 0001 0000003c 0004 c0000201")
    + bytes.fromhex("c010 0006 0001 0000003c 0018 c010 c010 00000001 00000002 00000003 00000004 00000005")
    + OPT,
]
PARTS = (
    b"\0",
    b"\xff",
    b"\xc0\x0c",
    b"\xc0\x00",
    b"\xc0\xff",
    b"\x40",
    b"\x3f",
    b"\0\x29",
    b"\0\xfa",
    OPT,
    NAME,
)
ADDRESSES = [ip_address(0xC000_0200 + n) for n in range(64)] + [
    ip_address((0x2001_0DB8 << 96) + n) for n in range(64)
]
ROOM = {"udp": DATAGRAM_BYTES_MAX, "tcp": 65_535}


def look_at_reply(data: bytes, reply: bytes, room: int) -> None:
    assert reply[:2] == data[:2], "another identifier"
    assert reply[2] & 0x80, "not an answer"
    assert len(reply) <= room, f"{len(reply)} bytes, {room} are taken"
    dns.message.from_wire(reply)
    assert reply_to(reply) == b"", "an answer is answered"


def reply_to(data: bytes) -> bytes | None:
    """What its sender is told who sent no query; None for a query."""
    try:
        read_query(data)
    except BadMessage as bad:
        return bad.reply
    return None


def look_at_query(rng: random.Random, data: bytes) -> None:
    refused = reply_to(data)
    if refused is not None:
        if refused:
            look_at_reply(data, refused, PLAIN_BYTES_MAX)
        return
    query = read_query(data)
    assert len(data) <= QUERY_BYTES_MAX
    query.reversed_address()
    has_edns = data[11] > 0
    room = DATAGRAM_BYTES_MAX if has_edns else PLAIN_BYTES_MAX
    some = rng.sample(ADDRESSES, rng.randrange(64))
    extended = Extended(15, rng.choice(["", "rule", "x" * 300, "\N{SNOWMAN}" * 300, "\0\ud800"]))
    look_at_reply(data, query.reply("udp", rcode=NXDOMAIN, extended=extended), room)
    if query.type in (1, 28):
        found = query.addresses(some, 60)
        look_at_reply(data, query.reply("udp", answer=found), room)
        look_at_reply(data, query.reply("tcp", answer=found), 65_535)
    if query.type == 12:
        look_at_reply(data, query.reply("udp", answer=query.names(["a.org", "..", "x y"], 60)), room)
    question = query.question()
    assert answers(question.wire[:2] + b"\x80" + question.wire[3:], question)


def look_at_answer(query: Query, data: bytes) -> None:
    for way, room in (("udp", PLAIN_BYTES_MAX), ("tcp", 65_535)):
        try:
            passed_on = query.passed_on(data, way, 60)  # type: ignore[arg-type]  # both are ways
        except BadMessage:
            continue
        look_at_reply(QUERIES[3], passed_on, room)
        kept = dns.message.from_wire(passed_on)
        assert {rrset.rdtype for rrset in kept.answer} <= {5, 15, 39}
        assert {rrset.rdtype for rrset in kept.authority} <= {6}
        assert all(rrset.ttl <= 60 for rrset in kept.answer)


def messages(cuts: list[bytes]) -> list[bytes] | str:
    reader, found = MessageReader(QUERY_BYTES_MAX), []
    try:
        for cut in cuts:
            found += reader.feed(cut)
        reader.end()
    except ProtocolError as error:
        return error.reason
    return found


def look_at_stream(rng: random.Random, data: bytes) -> None:
    whole = messages([data])
    assert whole == messages([data[at : at + 1] for at in range(len(data))])
    if isinstance(whole, list):
        assert b"".join(map(framed, whole)) == data
    else:
        assert whole == "dns_bad_length"


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
    asked = read_query(QUERIES[3])
    while time.monotonic() < end:
        seeds = rng.choice((QUERIES, QUERIES, ANSWERS))
        data = mutate(rng, rng.choice(seeds)) if rng.random() < 0.95 else rng.randbytes(rng.randrange(600))
        stream = mutate(rng, b"".join(map(framed, rng.choices(QUERIES, k=rng.randrange(3)))))
        try:
            look_at_query(rng, data)
            look_at_answer(asked, data)
            look_at_stream(rng, stream)
        except Exception:
            traceback.print_exc()
            print(f"seed {options.seed}, input: {data.hex()}, stream: {stream.hex()}")
            return 1
        count += 1
    print(f"{count} inputs, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
