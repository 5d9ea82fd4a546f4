"""What the kernel makes of a table's orders: the chains that judge, gone through packet by packet.

It knows the few words that stand in those chains, and fails on any other. A packet is one that begins a flow, or an
answer to it: then its own addresses and ports stand the other way round, and `ct original` does not.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, NamedTuple

from doorward.packetfilter import orders, skeleton
from doorward.packetfilter.model import Table
from doorward.packetfilter.writing import lay_out
from doorward.policy.model import IPAddress


class Packet(NamedTuple):
    """The first packet of a flow; `is_answer`: one that comes back."""

    transport: str
    source: IPAddress
    destination: IPAddress
    port: int
    is_answer: bool = False


class Fate(NamedTuple):
    """allow, deny or up, and the name of the counter that it counted for."""

    action: str
    counter: str | None


class Interpreter:
    """One table, as its JSON says it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.allowed = skeleton.allowed_mark(table.capture)
        self.chains: dict[str, list[list[Any]]] = {}
        self.maps: dict[str, list[tuple[int, int, Any]]] = {}
        for order in orders.load(lay_out(table)):
            match order:
                case {"add": {"rule": {"chain": chain, "expr": statements}}}:
                    self.chains.setdefault(chain, []).append(statements)
                case {"add": {"map": {"name": name, "elem": elements}}}:
                    self.maps[name] = [(*_range(span), verdict) for span, verdict in elements]

    def judge(self, packet: Packet, *, own: bool = False) -> Fate:
        """How a packet fares. Raises AssertionError for a table that makes no sense."""
        chain, counter = "judge-own" if own else "judge", None
        for _ in range(16):  # as deep as the kernel goes
            if chain == "refuse":
                return Fate("deny", counter)
            verdict: Any = None
            for statements in self.chains[chain]:
                for statement in statements:
                    match statement:
                        case {"match": {"op": operator, "left": left, "right": right}}:
                            if not self._matches(packet, operator, left, right):
                                break
                        case {"vmap": {"key": key, "data": name}}:
                            verdict = self._look_up(packet, key, name.removeprefix("@"))
                        case {"counter": counter}:
                            pass
                        case {"mangle": {"value": mark}}:
                            assert mark == self.allowed
                            return Fate("allow", counter)
                        case _:
                            verdict = statement
                if verdict is not None:
                    break
            match verdict:
                case None | {"return": None}:
                    return Fate("up", counter)
                case {"goto": {"target": chain}}:
                    pass
                case _:
                    raise AssertionError(f"no word of the judging chains: {verdict}")
        raise AssertionError("the chains lead nowhere")

    def _matches(self, packet: Packet, operator: str, left: Any, right: Any) -> bool:
        value = self._value(packet, left)
        if value is None:
            return False
        if isinstance(value, str):
            assert operator in ("==", "in")
            return value == str(right)
        first, last = _range(right)
        return first <= value <= last

    def _look_up(self, packet: Packet, key: Any, name: str) -> Any:
        value = self._value(packet, key)
        if not isinstance(value, int):
            return None
        found = [verdict for first, last, verdict in self.maps[name] if first <= value <= last]
        assert len(found) <= 1, "the kernel takes no intervals that overlap"
        return found[0] if found else None

    def _value(self, packet: Packet, key: Any) -> int | str | None:
        version = packet.source.version
        match key:
            case {"&": [inner, mask]}:
                value = self._value(packet, inner)
                return None if value is None else int(value) & int(ip_address(mask))
            case {"meta": {"key": "nfproto"}}:
                return f"ipv{version}"
            case {"meta": {"key": "l4proto"}}:
                return packet.transport
            case {"ct": {"key": "state"}}:
                return "established" if packet.is_answer else "new"
            case {"ct": {"key": "direction"}}:
                return "reply" if packet.is_answer else "original"
            case {"ct": {"key": str(end), "dir": "original"}}:
                if end.split()[0] != ("ip" if version == 4 else "ip6"):
                    return None
                return int(packet.source if end.endswith("saddr") else packet.destination)
            case {"payload": {"protocol": "th", "field": "dport"}}:
                return 40_000 if packet.is_answer else packet.port
            case {"payload": {"protocol": "th", "field": "sport"}}:
                return packet.port if packet.is_answer else 40_000
        raise AssertionError(f"no word of the judging chains: {key}")


def _range(span: Any) -> tuple[int, int]:
    match span:
        case {"range": [first, last]}:
            return _number(first), _number(last)
    return _number(span), _number(span)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else int(ip_address(value))
