"""Feeds random and mutated texts to the parser of hosts, and random addresses to the guard.

The promises: only BadHost comes out; what comes out reads as itself again; whatever the C library takes for an
IPv4 address is that address; a name has only the characters of names; and no spelling or disguise of a guarded
address passes for an ordinary one. Stops with status 1 and the input at the first broken promise; `--seed`
repeats a run.

    python fuzz/fuzz_host.py --seconds 60
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from doorward.policy.address import BadHost, forms, parse_host
from doorward.policy.guard import guard
from doorward.policy.names import parse_pattern
from doorward.policy.networks import parse_network

SEEDS = [
    "127.0.0.1",
    "0x7f.1",
    "0177.0.0.01",
    "2130706433",
    "[::ffff:127.0.0.1]",
    "64:ff9b::7f00:1",
    "localhost.",
]
SEEDS += [
    "_srv.a-b.example.org",
    "*.example.org",
    "10.0.0.0/8",
    "10.0.0.1-10.0.0.9",
    "fe80::1%eth0",
    "a" * 63 + ".x",
]
ALPHABET = "0123456789abcdefxXgz.:-_[]%/* \0\n\x7f\xe9\u0661\uff11\u3002"
NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


def mutated(source: random.Random) -> str:
    text = list(source.choice(SEEDS)) if source.random() < 0.7 else []
    for _ in range(source.randrange(8)):
        at = source.randrange(len(text) + 1)
        if text and source.random() < 0.4:
            del text[at : at + source.randrange(1, 4)]
        else:
            text.insert(at, source.choice(ALPHABET) * source.choice((1, 1, 1, 2, 64, 300)))
    return "".join(text)


def check_host(text: str) -> None:
    meant = None
    try:
        # inet_aton reads up to white space and ignores the rest; a host has neither.
        if re.search(r"\s", text) is None:
            meant = IPv4Address(socket.inet_aton(text))
    except (OSError, ValueError):
        pass
    try:
        host = parse_host(text)
    except BadHost:
        too_long = max(map(len, text.split("."))) > 63  # inet_aton reads any number of leading zeros
        assert meant is None or too_long, "an IPv4 address was refused"
        return
    assert meant is None or host == meant, "an IPv4 address passed for something else"
    assert parse_host(str(host)) == host, "reading it again changes it"
    assert not isinstance(host, str) or NAME.fullmatch(host), "not a name"


def check_policy_words(text: str) -> None:
    for parse in (parse_pattern, parse_network):
        try:
            parse(text)
        except ValueError as error:
            message = str(error)
        else:
            continue
        assert len(message) < 400, "the mistake repeats its input"


def check_disguises(source: random.Random) -> None:
    secret = source.choice((0x7F00_0000 | source.getrandbits(24), 0xA9FE_A9FE, 0x6464_64C8))
    high = source.getrandbits(64)
    for value in (
        0xFFFF << 32 | secret,
        0xFFFF_0000 << 32 | secret,
        0x64_FF9B << 96 | secret,
        0x64_FF9B_0001 << 80 | (high & 0xFFFF) << 64 | secret,
        0x2002 << 112 | secret << 80 | high,
        0x2001 << 112 | high << 32 | secret ^ 0xFFFF_FFFF,
        high << 64 | 0x0200_5EFE << 32 | secret,
    ):
        address = parse_host(str(IPv6Address(value)))
        assert not isinstance(address, str)
        assert guard(address) is not None, f"{address} hides {IPv4Address(secret)}"
        assert IPv4Address(secret) in forms(address)


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=None)
    options = arguments.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    source = random.Random(seed)  # noqa: S311 - a run must be repeatable, not secret
    deadline = time.monotonic() + options.seconds
    runs = 0
    checks: tuple[Callable[[str], None], ...] = (check_host, check_policy_words)
    while time.monotonic() < deadline:
        text = mutated(source)
        try:
            for check in checks:
                check(text)
            check_disguises(source)
        except Exception as error:
            print(
                f"broken promise after {runs} runs, seed {seed}, input {text!r}: {type(error).__name__}: {error}"
            )
            return 1
        runs += 1
    print(f"{runs} runs, seed {seed}: every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
