"""The words of nft that the table is written with, in both of its languages: text for people, JSON for libnftables.

Sources: nft(8), libnftables-json(5).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

Json: TypeAlias = dict[str, Any]


class Phrase(NamedTuple):
    """A statement, or an expression in one."""

    text: str
    json: Any


ACCEPT: Final = Phrase("accept", {"accept": None})
DROP: Final = Phrase("drop", {"drop": None})
RETURN: Final = Phrase("return", {"return": None})
MASQUERADE: Final = Phrase("masquerade", {"masquerade": None})
RESET: Final = Phrase("reject with tcp reset", {"reject": {"type": "tcp reset"}})
PROHIBITED: Final = Phrase(
    "reject with icmpx admin-prohibited", {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
)
MARK: Final = Phrase("meta mark", {"meta": {"key": "mark"}})
FLOW_MARK: Final = Phrase("ct mark", {"ct": {"key": "mark"}})
IS_NEW: Final = Phrase(
    "ct state new", {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}
)


def meta(key: str) -> Phrase:
    """What is known of the packet besides its bytes."""
    return Phrase(f"meta {key}", {"meta": {"key": key}})


def ct(key: str, direction: str = "") -> Phrase:
    """What the table of connections knows; `direction` original: as the packet that began the flow had it."""
    if direction:
        return Phrase(f"ct {direction} {key}", {"ct": {"key": key, "dir": direction}})
    return Phrase(f"ct {key}", {"ct": {"key": key}})


def field(protocol: str, name: str) -> Phrase:
    """A field of a header."""
    return Phrase(f"{protocol} {name}", {"payload": {"protocol": protocol, "field": name}})


def socket(key: str) -> Phrase:
    """What is true of the socket that the packet belongs to; without one, nothing."""
    return Phrase(f"socket {key}", {"socket": {"key": key}})


def concat(*parts: Phrase) -> Phrase:
    """Several values as one."""
    return Phrase(" . ".join(part.text for part in parts), {"concat": [part.json for part in parts]})


def masked(left: Phrase, mask: str) -> Phrase:
    """Some bits of a value."""
    return Phrase(f"{left.text} & {mask}", {"&": [left.json, mask]})


def match(left: Phrase, right: str | int, operator: str = "==") -> Phrase:
    """`operator`: ==, != or, for flags, in."""
    shown = f"0x{right:08x}" if left in (MARK, FLOW_MARK) and isinstance(right, int) else str(right)
    sign = f"{operator} " if operator == "!=" or "&" in left.text else ""
    return Phrase(f"{left.text} {sign}{shown}", _match(operator, left, _right(right)))


def between(left: Phrase, first: str | int, last: str | int) -> Phrase:
    """The value lies in a range, both ends included."""
    if first == last:
        return match(left, first)
    return Phrase(f"{left.text} {first}-{last}", _match("==", left, {"range": [first, last]}))


def among(left: Phrase, *values: str | int) -> Phrase:
    """Whether the value is one of these."""
    shown = ", ".join(f"0x{v:08x}" if left is MARK and isinstance(v, int) else str(v) for v in values)
    return Phrase(f"{left.text} {{ {shown} }}", _match("==", left, {"set": list(values)}))


def in_state(*states: str) -> Phrase:
    """The state of the connection is one of these."""
    right = list(states) if len(states) > 1 else states[0]
    return Phrase(f"ct state {','.join(states)}", _match("in", ct("state"), right))


def no_route_back() -> Phrase:
    """Packets to the source would leave by another interface than this one came by."""
    left = Phrase("", {"fib": {"result": "oif", "flags": ["saddr", "iif"]}})
    return Phrase("fib saddr . iif oif missing", _match("==", left, False))


def leads_to(*kinds: str) -> Phrase:
    """The kind of the destination, as this machine's routes have it."""
    left = Phrase("fib daddr type", {"fib": {"result": "type", "flags": ["daddr"]}})
    return match(left, kinds[0]) if len(kinds) == 1 else among(left, *kinds)


def set_mark(value: int) -> Phrase:
    """For the rest of the packet's way through this machine."""
    return Phrase(f"meta mark set 0x{value:08x}", {"mangle": {"key": MARK.json, "value": value}})


def set_flow_mark(value: int) -> Phrase:
    """For as long as the flow is known."""
    return Phrase(f"ct mark set 0x{value:08x}", {"mangle": {"key": FLOW_MARK.json, "value": value}})


def jump(chain: str) -> Phrase:
    """Into a chain and back."""
    return Phrase(f"jump {chain}", {"jump": {"target": chain}})


def goto(chain: str) -> Phrase:
    """Into a chain, and from there back to who jumped here."""
    return Phrase(f"goto {chain}", {"goto": {"target": chain}})


def look_up(key: Phrase, name: str) -> Phrase:
    """On with the verdict that a map has for this value, if any."""
    return Phrase(f"{key.text} vmap @{name}", {"vmap": {"key": key.json, "data": f"@{name}"}})


def counted(name: str) -> Phrase:
    """One more for this counter."""
    return Phrase(f"counter name {name}", {"counter": name})


def tproxy(port: int) -> Phrase:
    """To the transparent socket on this port; without one, the rule ends here."""
    return Phrase(f"tproxy to :{port}", {"tproxy": {"port": port}})


def redirect(port: int) -> Phrase:
    """To this port of the address that the packet's interface has."""
    return Phrase(f"redirect to :{port}", {"redirect": {"port": port}})


def at_most(rate: int) -> Phrase:
    """So many packets a second."""
    said = f"limit rate {rate}/second burst {rate} packets"
    return Phrase(said, {"limit": {"rate": rate, "burst": rate, "per": "second"}})


def logged(prefix: str, group: int) -> Phrase:
    """Told to whoever listens to this group of nfnetlink_log; 128 bytes hold every header that we read."""
    said = f'log prefix "{prefix}" group {group} snaplen 128'
    return Phrase(said, {"log": {"prefix": prefix, "group": group, "snaplen": 128}})


def _right(value: str | int) -> Any:
    if isinstance(value, str) and "/" in value:
        address, _, length = value.partition("/")
        return {"prefix": {"addr": address, "len": int(length)}}
    return value


def _match(operator: str, left: Phrase, right: Any) -> Json:
    return {"match": {"op": operator, "left": left.json, "right": right}}
