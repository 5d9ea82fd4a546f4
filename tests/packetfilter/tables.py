"""Small tables for tests, and an nft that only remembers what it was asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Any, Final

from doorward.packetfilter.compiler import compile_table
from doorward.packetfilter.model import Capture, Element, Table
from doorward.packetfilter.nft import NftRefused
from doorward.packetfilter.words import Json
from doorward.policy.evaluation import Policy
from doorward.policy.model import Action, PortRange, Rule

CAPTURE: Final = Capture(
    networks=("10.1.0.0/24", "fd01::/64"), interfaces=("inner",), tcp_port=1081, udp_port=1081
)
WEB: Final = Rule(
    "web", Action.ALLOW, 3, to_networks=(ip_network("198.51.100.0/24"),), ports=(PortRange("tcp", 80, 80),)
)
HOLE: Final = Element("tcp", "10.2.0.2", "10.2.0.2", "10.2.0.1", 5000)
HOLE6: Final = Element("udp", "fd02::", "fd02::ff", None, 5001)


def table_of(*rules: Rule, capture: Capture = CAPTURE) -> Table:
    """One policy's."""
    return compile_table(Policy(rules, "revision"), capture)


class RememberingNft:
    """Fulfils `Nft`; fails for orders that mention any of `unwanted`."""

    def __init__(self) -> None:
        self.transactions: list[list[Json]] = []
        self.unwanted: Sequence[str] = ()
        self.listed: list[Any] = []

    def run(self, orders: Iterable[Json]) -> list[Any]:
        found = list(orders)
        if any(word in str(found) for word in self.unwanted):
            raise NftRefused("unwanted")
        self.transactions.append(found)
        return self.listed

    def words(self) -> list[list[tuple[str, str]]]:
        """Of every transaction the orders, each with what it is about."""
        return [
            [(order, kind) for o in orders for order, about in o.items() for kind in about]
            for orders in self.transactions
        ]
