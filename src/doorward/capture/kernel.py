"""The few system calls that Python 3.11 has no words for. Each raises OSError with what the kernel said."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

NEW_USER: Final = 0x10000000
NEW_NET: Final = 0x40000000
NEW_MOUNTS: Final = 0x00020000

_SET_DUMPABLE: Final = 4
_CAPBSET_READ: Final = 23
_CAPBSET_DROP: Final = 24
_CAP_AMBIENT: Final = 47
_CAP_AMBIENT_CLEAR_ALL: Final = 4
_SET_NO_NEW_PRIVS: Final = 38
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_SLAVE: Final = 1 << 19
_CLOSE_RANGE: Final = 436
_CAPABILITY_VERSION_3: Final = 0x20080522
# One past the highest number that a capability can have.
CAPABILITIES_MAX: Final = 64

_libc = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def unshare(flags: int) -> None:
    """Leave for new namespaces. See unshare(2)."""
    _checked(_libc.unshare(flags))


def enter(fd: int, kind: int) -> None:
    """Join the namespace that this descriptor stands for. See setns(2)."""
    _checked(_libc.setns(fd, kind))


def mounts_stay_here() -> None:
    """What is mounted from here on is not seen where this mount namespace came from; the other way round it is."""
    _mount(b"none", b"/", None, _MS_REC | _MS_SLAVE)


def mount_nothing(path: Path) -> None:
    """An empty directory in the place of this one, that nothing can be put into."""
    _mount(b"none", os.fsencode(path), b"tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_RDONLY)


def mount_over(path: Path, other: str) -> None:
    """Another file in the place of this one."""
    _mount(os.fsencode(other), os.fsencode(path), None, _MS_BIND)


def hide() -> None:
    """Let nobody without rights over this process look into it. See PR_SET_DUMPABLE in prctl(2)."""
    _prctl(_SET_DUMPABLE, 0)


def no_new_privileges() -> None:
    """No program that is run from here on gets more rights than it was run with."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def limit_capabilities(kept: frozenset[int]) -> None:
    """Give up all capabilities but these, for this process and all that it becomes or begets."""
    _prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    for number in range(CAPABILITIES_MAX):
        if _libc.prctl(_CAPBSET_READ, number, 0, 0, 0) < 0:
            break  # the kernel knows no more of them
        if number not in kept:
            _prctl(_CAPBSET_DROP, number)
    mask = sum(1 << number for number in kept)
    data = (_CapabilityData * 2)(
        *(_CapabilityData(part, part, 0) for part in (mask & 0xFFFFFFFF, mask >> 32))
    )
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(data)))


def close_from(first: int) -> None:
    """Close every descriptor from this one on."""
    try:
        _checked(_libc.syscall(_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0))
    except OSError:  # before Linux 5.9
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _prctl(option: int, argument: int) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    _checked(_libc.mount(source, target, kind, ctypes.c_ulong(flags), None))


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
