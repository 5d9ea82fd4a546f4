"""The helper: a small process that stays in a captured program's namespace for as long as the launcher lives.

    it says   "apart"            it has made the namespaces; the launcher maps users
    it hears  "mapped"
    it says   "ready PLACE …"    with the sockets that catch; or "failed SENTENCE"
    it hears  "PLACE"            a UDP socket is wanted whose datagrams come from there
    it says   "PLACE"            with the socket, or "PLACE failed" without

It ends when the launcher does. It has all rights over the namespace and none elsewhere; nobody in the namespace has
any over it, since it has more than they.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Final, NoReturn

from doorward.capture import kernel, links, passing, rules
from doorward.capture.addresses import OWN, PORT
from doorward.capture.netlink import NETFILTER, ROUTE, Netlink, NetlinkRefused
from doorward.capture.obstacles import why_no_namespace, why_no_rules
from doorward.capture.sockets import Kind, Place, answering, catching, local, place_of, refusing

APART: Final = "apart"
MAPPED: Final = "mapped"
READY: Final = "ready"
FAILED: Final = "failed"

_RESOLVER_CONFIGURATION: Final = Path("/etc/resolv.conf")
_RESOLVER_BYTES_MAX: Final = 65_536
_DNS_PORT: Final = 53
_STANDARD: Final = 3  # descriptors that every process has
_KINDS: Final[tuple[Kind, ...]] = ("tcp", "udp")


def start() -> tuple[int, socket.socket]:
    """Fork the helper: its process id, and our end of the channel to it. Raises OSError."""
    ours, its = passing.pair()
    try:
        process = os.fork()
    except OSError:
        ours.close()
        its.close()
        raise
    if not process:
        _live(its)
    its.close()
    return process, ours


def _live(channel: socket.socket) -> NoReturn:
    """The whole life of the helper."""
    try:
        channel = _stand_apart(channel)
        if _prepare(channel):
            _answer(channel)
    except BaseException:  # noqa: S110  (whatever it was, the launcher sees that the channel has ended)
        pass
    os._exit(0)


def _stand_apart(channel: socket.socket) -> socket.socket:
    """Hold nothing of the launcher's but the channel: a pipe that we held open would not end when it should."""
    os.setsid()  # what the terminal sends is not for us
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(_STANDARD):
        os.dup2(nothing, standard)
    os.dup2(channel.detach(), _STANDARD, inheritable=False)
    kernel.close_from(_STANDARD + 1)
    os.chdir("/")
    return socket.socket(fileno=_STANDARD)


def _prepare(channel: socket.socket) -> bool:
    """Make the namespace and its sockets, and send those out; False if that was not to be."""
    try:
        kernel.unshare(kernel.NEW_USER | kernel.NEW_NET)
    except OSError as error:
        passing.send(channel, f"{FAILED} {why_no_namespace(error.errno or 0)} ({error.strerror})")
        return False
    passing.send(channel, APART)
    if passing.receive(channel)[0] != MAPPED:
        return False
    kernel.hide()
    try:
        made = _make()
    except NetlinkRefused as refused:
        passing.send(channel, f"{FAILED} {why_no_rules(refused.number)} ({refused})")
        return False
    except OSError as error:
        passing.send(channel, f"{FAILED} the namespace could not be built: {error.strerror}")
        return False
    passing.send(channel, " ".join((READY, *map(str, made))), [sock.fileno() for sock in made.values()])
    for sock in made.values():
        sock.close()  # from now on the launcher alone has them, and its end is theirs
    return True


def _make() -> dict[Place, socket.socket]:
    """What the launcher needs of this namespace. Raises NetlinkRefused, OSError."""
    made: dict[Place, socket.socket] = {}
    for version in _build():
        for kind in _KINDS:
            made[Place(kind, OWN[version], PORT)] = catching(kind, version)
        made[Place("icmp", OWN[version], 0)] = refusing(version)
    for place in (Place(kind, host, _DNS_PORT) for host in own_resolvers() for kind in _KINDS):
        try:
            made[place] = local(place)
        except OSError:
            continue  # an address that this namespace does not have: nobody can be asked there
    return made


def _build() -> list[int]:
    """Addresses, routes, packet filter; the IP versions that there are. Raises NetlinkRefused, OSError."""
    versions = [4]
    with Netlink(ROUTE) as route:
        route.ask([links.lo_up()])
        route.ask([links.address(4), links.route(4)])
        try:
            route.ask([links.address(6), links.route(6)])
            versions.append(6)
        except NetlinkRefused:
            pass  # a machine without IPv6: its programs have none either
    with Netlink(NETFILTER) as netfilter:
        netfilter.ask(rules.table())
    return versions


def own_resolvers(configuration: Path = _RESOLVER_CONFIGURATION) -> list[str]:
    """Nameservers that a program would look for on its own loopback, where nothing is caught. See resolv.conf(5)."""
    try:
        with configuration.open("rb") as file:
            lines = file.read(_RESOLVER_BYTES_MAX).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    words = [line.split() for line in lines]
    named = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    if not named:
        return ["127.0.0.1"]  # what the C library asks then
    return [host for host in dict.fromkeys(named) if _is_loopback(host)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _answer(channel: socket.socket) -> None:
    """Sockets on request, until the launcher has ended. Raises OSError."""
    while True:
        asked, _ = passing.receive(channel)
        if not asked:
            return
        try:
            place = place_of(asked)
            sock = answering(place.host, place.port)
        except (OSError, ValueError):
            passing.send(channel, f"{asked} {FAILED}")
            continue
        passing.send(channel, asked, [sock.fileno()])
        sock.close()
