"""The inside of a namespace for tests: sockets that belong to it, used from out here, and this machine's own addresses.

A machine that lets nobody make namespaces skips what needs them, and says why.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from socket import socket as socket_object
from typing import Final

import pytest

from doorward.capture import kernel, netlink, passing, rules
from doorward.capture.launch import CannotCapture, Launch

FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
# Addresses that are nobody's (RFC 5737, RFC 3849).
NOBODY: Final = {4: "198.51.100.7", 6: "2001:db8::7"}


@cache
def why_not() -> str:
    """What keeps this machine from making namespaces; empty if nothing does."""
    try:
        launch = Launch()
    except CannotCapture as error:
        return str(error)
    try:
        for sock in launch.sockets().values():
            sock.close()
    except CannotCapture as error:
        return str(error)
    finally:
        launch.close()
    return ""


needs_namespaces = pytest.mark.skipif(bool(why_not()), reason=f"no namespaces here: {why_not()}")


@cache
def own_address(version: int) -> str | None:
    """This machine's own address that is not loopback; None if it has none of this version."""
    try:
        with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as sock:
            sock.connect((NOBODY[version], 9))
            found: str = sock.getsockname()[0]
    except OSError:
        return None
    return None if found.startswith(("127.", "fe80:")) or found == "::1" else found


def need_address(version: int = 4) -> str:
    """The same, or the test is skipped."""
    found = own_address(version)
    if found is None:
        pytest.skip(f"this machine has no IPv{version} address but loopback")
    return found


class Inside:
    """Makes sockets that belong to a launch's namespace."""

    def __init__(self, launch: Launch) -> None:
        self._ours, its = passing.pair()
        self._ours.settimeout(5)
        self._process = os.fork()
        if not self._process:
            _serve(launch, its)
        its.close()

    def socket(self, version: int = 4, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A new one, blocking; connect it, bind it, and it happens inside."""
        passing.send(self._ours, f"{FAMILY[version].value} {int(kind)}")
        text, descriptors = passing.receive(self._ours)
        assert text == "made", text
        made = socket.socket(fileno=descriptors[0])
        made.settimeout(5)
        return made

    def unix_socket(self) -> socket_object:
        """One that keeps packets apart, made in the namespace."""
        passing.send(self._ours, f"{socket.AF_UNIX.value} {int(socket.SOCK_SEQPACKET)}")
        _, descriptors = passing.receive(self._ours)
        return socket_object(fileno=descriptors[0])

    def delete_table(self) -> None:
        """Undo the packet filter, with every right there is over the namespace."""
        passing.send(self._ours, "delete")
        text, _ = passing.receive(self._ours)
        assert text == "deleted", text

    def close(self) -> None:
        self._ours.close()
        if self._process:
            os.waitpid(self._process, 0)
            self._process = 0


def _serve(launch: Launch, channel: socket.socket) -> None:
    try:
        kernel.enter(launch._namespaces[0], kernel.NEW_USER)
        kernel.enter(launch._namespaces[1], kernel.NEW_NET)
        os.dup2(channel.fileno(), 3)
        kernel.close_from(4)
        channel = socket.socket(fileno=3)
        while True:
            text, _ = passing.receive(channel)
            if not text:
                break
            if text == "delete":
                _delete_table()
                passing.send(channel, "deleted")
                continue
            family, kind = map(int, text.split())
            with socket.socket(family, kind) as made:
                passing.send(channel, "made", [made.fileno()])
    finally:
        os._exit(0)


def _delete_table() -> None:
    begin, *_, end = rules.table()
    head = begin._replace(kind=0xA02, flags=netlink.ACK, body=b"\1\0\0\0" + netlink.text(1, rules.TABLE))
    with netlink.Netlink(netlink.NETFILTER) as netfilter:
        netfilter.ask([begin, head, end])


def unserved(launch: Launch) -> None:
    """As when the firewall was killed: nobody has the sockets that catch."""
    for sock in launch.sockets().values():
        sock.close()
    launch.channel.setblocking(True)
    passing.send(launch.channel, "are you past closing yours?")
    passing.receive(launch.channel)


@contextmanager
def launched() -> Iterator[tuple[Launch, Inside]]:
    """A namespace, and its inside."""
    launch = Launch()
    try:
        inside = Inside(launch)
        try:
            yield launch, inside
        finally:
            inside.close()
    finally:
        launch.close()
