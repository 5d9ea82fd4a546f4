"""What a client wrote as destination, and every address that it really is.

A firewall that compares texts can be talked past: `127.1`, `0x7f000001` and `::ffff:127.0.0.1` all reach the
same server. So a text becomes an address or a name exactly once, here, and an address is judged under every
form. Nothing is looked up and nothing is ever cut to fit.

Sources: IPv4 text as the WHATWG URL standard's parser (and inet_aton) reads it; names RFC 1123 section 2.1
with the underscore that is in use; IPv6 text RFC 4291 section 2.2. Embedded addresses: RFC 4291 section
2.5.5 (mapped, compatible), RFC 2765 (translated), RFC 6052 and 8215 (NAT64), RFC 3056 (6to4), RFC 4380
(Teredo), RFC 5214 (ISATAP).
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from doorward.policy.model import IPAddress

NAME_LENGTH_MAX: Final = 253  # RFC 1035 section 2.3.4: 255 octets on the wire
LABEL_LENGTH_MAX: Final = 63
IPV6_TEXT_LENGTH_MAX: Final = 45

# The upper 96 bits of the prefixes that end in an IPv4 address.
_LAST_32_BITS: Final = frozenset(
    {
        0,  # ::/96, compatible
        0xFFFF,  # ::ffff:0:0/96, mapped
        0xFFFF_0000,  # ::ffff:0:0:0/96, translated
        0x64_FF9B << 64,  # 64:ff9b::/96, NAT64's well-known prefix
    }
)

_LABEL = re.compile(r"[A-Za-z0-9_-]+")


class BadHost(ValueError):
    """The text is neither an address nor a name that could be looked up; `reason` is the refusal's slug."""

    reason: Final = "bad_name"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def parse_host(text: str) -> IPAddress | str:
    """The address or the name that a client means by `text`; a destination without port.

    Takes a name, an IPv4 address in any form that inet_aton would read, or an IPv6 address with or without
    brackets. An address comes back canonical; a name lower case, without its final dot. A text whose last
    label is a number is an IPv4 address or refused: it is never a name, since resolvers disagree about it.
    Raises BadHost, with a detail that does not repeat the text.
    """
    if not text:
        raise BadHost("the host is empty")
    if len(text) > NAME_LENGTH_MAX + 1:
        raise BadHost(f"the host is {len(text)} characters long, {NAME_LENGTH_MAX} are allowed")
    if not text.isascii():
        raise BadHost("the host has a character outside ASCII; international names must come as xn--…")
    if ":" in text or text[0] == "[":
        return canonical(_parse_ipv6(text))
    labels = _labels(text)
    if _is_number(labels[-1]):
        return _parse_ipv4(labels)
    return ".".join(labels).lower()


def _labels(text: str) -> list[str]:
    """The labels of a name, the final dot dropped. Raises BadHost."""
    name = text.removesuffix(".")
    if len(name) > NAME_LENGTH_MAX:
        raise BadHost(f"the host is {len(name)} characters long, {NAME_LENGTH_MAX} are allowed")
    labels = name.split(".")
    for label in labels:
        if not label:
            raise BadHost("the host has an empty label")
        if len(label) > LABEL_LENGTH_MAX:
            raise BadHost(
                f"a label of the host is {len(label)} characters long, {LABEL_LENGTH_MAX} are allowed"
            )
        if _LABEL.fullmatch(label) is None:
            raise BadHost("the host has a character other than letters, digits, hyphen and underscore")
    return labels


def _is_number(label: str) -> bool:
    return label.isdigit() or _number(label) is not None


def _number(label: str) -> int | None:
    """The value of a decimal, octal (0…) or hexadecimal (0x…) number, or None."""
    digits, base = label.lower(), 10
    if digits.startswith("0x"):
        digits, base = digits[2:], 16
    elif len(digits) > 1 and digits[0] == "0":
        base = 8
    if not digits:
        return 0  # a bare "0x", as the URL standard reads it
    if "_" in digits or "-" in digits:
        return None  # int() would take both
    try:
        return int(digits, base)
    except ValueError:
        return None


def _parse_ipv4(labels: list[str]) -> IPv4Address:
    """One to four numbers; the last one fills all the octets that the others leave. Raises BadHost."""
    if len(labels) > 4:
        raise BadHost("the host ends in a number but has more than four parts")
    value = 0
    for position, label in enumerate(labels):
        number = _number(label)
        if number is None:
            raise BadHost("the host ends in a number but is not an IPv4 address")
        octets = 5 - len(labels) if position == len(labels) - 1 else 1
        if number >= 256**octets:
            raise BadHost("a number in the IPv4 address is too large")
        value = value << (8 * octets) | number
    return IPv4Address(value)


def _parse_ipv6(text: str) -> IPv6Address:
    if text[0] == "[":
        if text[-1] != "]":
            raise BadHost("the bracket of the IPv6 address is not closed")
        text = text[1:-1]
    if "%" in text:
        raise BadHost("an IPv6 address with a zone is refused: it would choose our interface")
    if len(text) > IPV6_TEXT_LENGTH_MAX:
        raise BadHost("the IPv6 address is too long")
    try:
        return IPv6Address(text)
    except AddressValueError:
        raise BadHost("the host is not an IPv6 address") from None


def canonical(address: IPAddress) -> IPAddress:
    """The address that will be dialled: a mapped one (::ffff:a.b.c.d) is its IPv4, any other is itself."""
    if isinstance(address, IPv4Address):
        return address
    value = int(address)
    return IPv4Address(value & 0xFFFF_FFFF) if value >> 32 == 0xFFFF else address


def embedded(address: IPAddress) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address is, or leads to; None if it carries none (or is IPv4 itself)."""
    if isinstance(address, IPv4Address):
        return None
    readings = _readings(int(address))
    return IPv4Address(readings[0]) if readings else None


def forms(address: IPAddress) -> tuple[IPAddress, ...]:
    """Every address under which this one must be judged: the canonical one first, then what it disguises.

    The disguised ones may only ever lead to a refusal. Some of them are for a stranger to choose (anybody may
    give a server an ISATAP-like interface identifier), so they must not open what a rule opened for IPv4.
    """
    if isinstance(address, IPv4Address):
        return (address,)
    itself = canonical(address)
    if isinstance(itself, IPv4Address):
        return (itself,)
    readings = _readings(int(address))
    return (itself, *map(IPv4Address, readings)) if readings else (itself,)


def _readings(value: int) -> tuple[int, ...]:
    """The IPv4 addresses inside one IPv6 address, the likeliest first."""
    found: list[int] = []
    low, high = value & 0xFFFF_FFFF, value >> 32
    if high in _LAST_32_BITS and value > 1:  # :: and ::1 are addresses of their own
        found.append(low)
    elif value >> 112 == 0x2002:  # 6to4
        found.append(value >> 80 & 0xFFFF_FFFF)
    elif value >> 96 == 0x2001_0000:  # Teredo: the client's address, every bit turned over
        found.append(low ^ 0xFFFF_FFFF)
    elif value >> 80 == 0x64_FF9B_0001:
        found.extend(_local_nat64_readings(value))
    if high & 0xFDFF_FFFF == 0x5EFE:  # ISATAP: interface identifier 0000:5efe or 0200:5efe
        found.append(low)
    return tuple(dict.fromkeys(found))


def _local_nat64_readings(value: int) -> list[int]:
    """Where 64:ff9b:1::/48 may hold the IPv4 address: its users choose the length (RFC 6052 section 2.2).

    The octet at bits 64 to 71 is skipped. A reading that begins with a zero octet is the padding of another
    length, unless all are.
    """
    upper, lower = value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF
    without_gap = upper << 56 | lower & 0x00FF_FFFF_FFFF_FFFF
    found = [value & 0xFFFF_FFFF]  # /96
    found += [without_gap >> (120 - prefix - 32) & 0xFFFF_FFFF for prefix in (64, 56, 48)]
    return [reading for reading in found if reading >> 24] or found[:1]
