"""Listening sockets of several processes on one address, each client address always led to the same one.

The kernel asks a small program about every new connection (SO_ATTACH_REUSEPORT_CBPF, socket(7)): it hashes the address
that the connection comes from, and the answer is the place of a socket in its group, in the order in which they began
to listen. A socket that is closed would shift the places of others, so whoever makes a group keeps all of it open.

A client has one form here: our sockets for IPv6 take no IPv4 (IPV6_V6ONLY), so none comes as ::ffff:a.b.c.d.
"""

from __future__ import annotations

import ctypes
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from doorward.api.errors import Side
from doorward.net.listen import BACKLOG
from doorward.net.seam import translate

SO_ATTACH_REUSEPORT_CBPF: Final = 51  # Python's socket module does not know it
SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27

# Where the packet's network header begins, for loads: linux/filter.h. What lies there: RFC 791, RFC 8200.
_NETWORK: Final = -0x100000 & 0xFFFFFFFF
_IPV4_SOURCE: Final = _NETWORK + 12
_IPV6_SOURCE: Final = _NETWORK + 8

# Operations of classic BPF: linux/bpf_common.h. A is the accumulator, X the index register.
_LOAD: Final = 0x20
_A_TO_X: Final = 0x07
_SHIFT_RIGHT: Final = 0x74
_XOR_X: Final = 0xAC
_MULTIPLY: Final = 0x24
_MODULO: Final = 0x94
_RETURN_A: Final = 0x16
_RETURN: Final = 0x06


class _Operation(NamedTuple):
    code: int
    value: int = 0


class Spread:
    """Which place an address has among `count`. By a secret of its own: nobody can choose addresses that meet."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Odd, so that multiplying loses nothing.
        self._factors = tuple(secrets.randbits(32) | 1 for _ in range(2))

    def group(self, make: Callable[[], socket.socket], host: str, port: int) -> list[socket.socket]:
        """So many sockets bound to one address, in the order of their places; those for streams listen.

        `make` gives each, unbound. Port 0 lets the kernel choose. Raises LinkError and its kind, with nothing left
        open; also where somebody else has the address.
        """
        sockets: list[socket.socket] = []
        try:
            for place in range(self.count):
                sockets.append(make())
                # Until the group is whole the kernel would lead some astray. Who comes meanwhile tries again by itself.
                _attach(sockets[place], SO_ATTACH_FILTER, [_Operation(_RETURN, 0)])
                _bind(sockets[place], host, sockets[0].getsockname()[1] if place else port, place)
            _attach(sockets[0], SO_ATTACH_REUSEPORT_CBPF, self._program(sockets[0].family))
            for sock in sockets:
                if sock.type == socket.SOCK_STREAM:
                    sock.listen(BACKLOG)
            for sock in sockets:
                sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        except BaseException as error:
            for sock in sockets:
                sock.close()
            if isinstance(error, OSError):
                raise translate(error.errno, Side.OURS) from None
            raise
        return sockets

    def _program(self, family: socket.AddressFamily) -> list[_Operation]:
        """Hash the source address and answer with a place."""
        first, second = self._factors
        mixing: list[_Operation] = []
        for bits, factor in ((16, first), (15, second)):
            mixing += [*_fold(bits), _Operation(_MULTIPLY, factor)]
        mixing += [*_fold(16), _Operation(_MODULO, self.count), _Operation(_RETURN_A)]
        if family == socket.AF_INET:
            return [_Operation(_LOAD, _IPV4_SOURCE), *mixing]
        words = [_Operation(_LOAD, _IPV6_SOURCE + 4 * number) for number in range(4)]
        combining = [words[0]]
        for word in words[1:]:
            combining += [_Operation(_MULTIPLY, first), _Operation(_A_TO_X), word, _Operation(_XOR_X)]
        return [*combining, *mixing]


def _bind(sock: socket.socket, host: str, port: int, place: int) -> None:
    """The first one is bound as if it were alone, and so finds out whether somebody else has the address."""
    if place:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    if not place:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _fold(bits: int) -> list[_Operation]:
    """A ^= A >> bits."""
    return [_Operation(_A_TO_X), _Operation(_SHIFT_RIGHT, bits), _Operation(_XOR_X)]


def _attach(sock: socket.socket, option: int, program: list[_Operation]) -> None:
    """Hand a program to the kernel, which copies it: `struct sock_fprog`. Raises OSError."""
    code = b"".join(struct.pack("HBBI", op.code, 0, 0, op.value) for op in program)
    buffer = ctypes.create_string_buffer(code)
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("HP", len(program), ctypes.addressof(buffer)))
