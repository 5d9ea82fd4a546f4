"""What `bind_for_client` is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName


class Wanted(NamedTuple):
    """A run of `ports` local ports, the first of them `port` (0: any), and where those who arrive are led."""

    transport: TransportName
    address: str
    port: int
    ports: int
    ip_filter: IpFilter | None
    client_address: SocketName | None
    full_proxy: bool
