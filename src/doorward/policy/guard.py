"""The built-in policy: addresses that no rule opens by accident.

Loopback, this host, link-local, cloud metadata, multicast, broadcast and the firewall's own addresses are
refused unless a rule names them outright, with a network no wider than the guarded block. `0.0.0.0/0`, an
absent `to` or a domain never does. Knows nothing of rules; the caller says whether an address is the
firewall's own.

Sources: RFC 1122 section 3.2.1.3, RFC 6890, RFC 4291; metadata addresses as their providers document them,
named beside each. Link-local ones are listed too, since a rule for 169.254.0.0/16 must not open them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from typing import Final, NamedTuple

from doorward.policy.address import forms
from doorward.policy.model import IPAddress, IPNetwork

LOOPBACK: Final = "guarded_loopback"
LINK_LOCAL: Final = "guarded_link_local"
METADATA: Final = "guarded_metadata"
OWN_ADDRESS: Final = "guarded_own_address"
NOT_UNICAST: Final = "guarded_not_unicast"

LOCALHOST: Final = "localhost"

METADATA_ADDRESSES: Final[tuple[IPAddress, ...]] = tuple(
    map(
        ip_address,
        (
            "169.254.169.254",  # Amazon EC2, Google, Azure, Oracle, OpenStack and most others
            "169.254.170.2",  # Amazon ECS: task credentials
            "169.254.170.23",  # Amazon EKS: Pod Identity agent
            "fd00:ec2::254",  # Amazon EC2
            "fd00:ec2::23",  # Amazon EKS: Pod Identity agent
            "fd20:ce::254",  # Google Compute Engine
            "168.63.129.16",  # Azure: WireServer
            "100.100.100.200",  # Alibaba Cloud
            "100.96.0.96",  # Volcano Engine
            "169.254.0.23",  # Tencent Cloud
            "192.0.0.192",  # Oracle Cloud classic
            "fd00:c1::a9fe:a9fe",  # Oracle Cloud
            "fe80::a9fe:a9fe",  # OpenStack
            "fd00:a9fe:a9fe::1",  # Linode
            "169.254.42.42",  # Scaleway
            "fd00:42::42",  # Scaleway
        ),
    )
)


class Guarded(NamedTuple):
    """Why an address is guarded. A network around it that is no wider than `block` names it outright."""

    reason: str
    label: str
    block: IPNetwork


_LABELS: Final = {
    "loopback": LOOPBACK,
    "this host": NOT_UNICAST,
    "link-local": LINK_LOCAL,
    "cloud metadata": METADATA,
    "multicast": NOT_UNICAST,
    "broadcast": NOT_UNICAST,
    "own address": OWN_ADDRESS,
}

LABEL_PREFIX: Final = "built-in: "


def _guarded(kind: str, block: IPNetwork) -> Guarded:
    return Guarded(_LABELS[kind], LABEL_PREFIX + kind, block)


_METADATA: Final[dict[tuple[int, int], Guarded]] = {
    (address.version, int(address)): _guarded("cloud metadata", ip_network(address))
    for address in METADATA_ADDRESSES
}
_BLOCKS: Final = tuple(
    _guarded(kind, ip_network(block))
    for kind, block in (
        ("loopback", "127.0.0.0/8"),
        ("loopback", "::1/128"),
        ("this host", "0.0.0.0/8"),
        ("this host", "::/128"),
        ("link-local", "169.254.0.0/16"),
        ("link-local", "fe80::/10"),
        ("multicast", "224.0.0.0/4"),
        ("multicast", "ff00::/8"),
        ("broadcast", "255.255.255.255/32"),
    )
)

GUARDED_NETWORKS: Final[tuple[IPNetwork, ...]] = tuple(
    guarded.block for guarded in (*_BLOCKS, *_METADATA.values())
)
"""What is guarded wherever the firewall runs, besides addresses in disguise and its own."""


def _octets_to_look_at() -> frozenset[int]:
    """First octets of guarded IPv4 addresses: every other address is let go after one look."""
    networks = [guarded.block for guarded in (*_BLOCKS, *_METADATA.values())]
    return frozenset(
        octet
        for network in networks
        if isinstance(network, IPv4Network)
        for octet in range(
            int(network.network_address) >> 24,
            (int(network.broadcast_address) >> 24) + 1,
        )
    )


_IPV4_OCTETS: Final = _octets_to_look_at()
_IPV4_BLOCKS: Final = tuple(guarded for guarded in _BLOCKS if guarded.block.version == 4)
_IPV6_BLOCKS: Final = tuple(guarded for guarded in _BLOCKS if guarded.block.version == 6)


def guard(address: IPAddress, *, own: bool = False) -> Guarded | None:
    """Why this address is guarded, or None.

    A disguised address (a 6to4 form of 127.0.0.1, say) is guarded as what it disguises, and only a rule with
    that very address names it. Loopback stays loopback where it is also the firewall's own.
    """
    itself, *disguised = forms(address)
    found = _guard_one(itself)
    if own and (found is None or found.reason not in (METADATA, LOOPBACK)):
        return _guarded("own address", ip_network(itself))
    if found is not None or not disguised:
        return found
    hidden = next((guarded for form in disguised if (guarded := _guard_one(form)) is not None), None)
    return None if hidden is None else hidden._replace(block=ip_network(itself))


def _guard_one(address: IPAddress) -> Guarded | None:
    value = int(address)
    if isinstance(address, IPv4Address):
        if value >> 24 not in _IPV4_OCTETS:
            return None
        blocks, version = _IPV4_BLOCKS, 4
    else:
        if value >> 125 == 1:  # 2000::/3, the public part of IPv6, holds no guarded address
            return None
        blocks, version = _IPV6_BLOCKS, 6
    metadata = _METADATA.get((version, value))
    if metadata is not None:
        return metadata
    return next((guarded for guarded in blocks if address in guarded.block), None)
