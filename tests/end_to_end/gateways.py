"""A firewall on the gateway of `wires`, led to by a table that `gateway_peers` has by hand, and servers that answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.gateway_peers import ECHO, table
from tests.end_to_end.running import RunningFirewall
from tests.end_to_end.wires import OTHER, SERVER, Where, Wires, wires

from doorward.config.loading import read_bytes
from doorward.packetfilter.model import MARK
from doorward.packetfilter.text import show
from doorward.packetfilter.writing import lay_out
from doorward.service.packet_filter_table import table_of

HEAD: Final = """
[listen]
proxy = ["127.0.0.1:0"]
[limits]
drain_timeout_s = 1
connect_timeout_s = 5
[transparent]
interfaces = ["inner"]
networks = ["10.1.0.0/24", "fd01::/64"]
"""
RULE: Final = """
[[rule]]
name = "the server"
action = "allow"
to = ["10.2.0.2", "fd02::2"]
protocols = ["any"]
"""


class Gateway:
    """Wires with a firewall on the gateway."""

    def __init__(self, made: Wires, start: StartFirewall) -> None:
        self.wires = made
        self._start = start

    def firewall(
        self,
        policy: str = HEAD + RULE,
        method: str = "tproxy",
        *,
        files: dict[str, str] | None = None,
        compiled: bool = False,
        descriptors_max: int | None = None,
    ) -> RunningFirewall:
        """A running one; `files` are what it has in place of the machine's.

        The packet filter's table is the one by hand, or what the policy is compiled to.
        """
        if compiled:
            self.wires.nft(compiled_table(policy))
        else:
            self.load(method)
        prefix = self.wires.enter("gateway") if files is None else self.wires.enter_with("gateway", files)
        return self._start(policy, prefix=prefix, descriptors_max=descriptors_max)

    def load(self, method: str = "tproxy") -> None:
        """The packet filter, anew."""
        self.wires.nft(f"add table inet doorward\ndelete table inet doorward\n{table(method)}")

    def peers(self, where: Where, *words: str) -> str:
        """What a program of `gateway_peers` prints."""
        return self.wires.run(where, *self.command(*words)).stdout

    def ask(self, kind: str, host: str, port: int = ECHO, *more: str) -> str:
        """What the client is told by a server of `serve`: the address that it sees; or the name of the error."""
        return self.peers("client", "ask", kind, host, str(port), *more)

    def serve(self, hosts: Sequence[str] = (*SERVER.values(), *OTHER.values())) -> None:
        """Servers that answer."""
        self.wires.serve("server", *self.command("serve", *hosts))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tests.end_to_end.gateway_peers", *words]


def compiled_table(text: str) -> str:
    """What a policy file becomes in the kernel, for `nft -f`."""
    configuration = read_bytes(text.encode(), Path("/nowhere/doorward.toml")).configuration
    assert configuration is not None
    table = table_of(configuration, ())
    assert table is not None
    return show(lay_out(table))


@contextmanager
def gateways(start: StartFirewall) -> Iterator[Gateway]:
    """Wires, and the gateway's kernel as the manual asks for it."""
    with wires() as made:
        made.forward()
        made.lead_here(MARK)
        yield Gateway(made, start)
