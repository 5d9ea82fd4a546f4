"""Orders to the kernel's packet filter, through libnftables; through the program `nft` where the library is missing.

A document (libnftables-json(5)) is one transaction: all of it, or nothing. It needs CAP_NET_ADMIN in its network
namespace. A call blocks until the kernel has answered: 200 microseconds for an element, seconds for a large table.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any, Final, Protocol

from doorward.packetfilter.orders import document
from doorward.packetfilter.words import Json

LIBRARY: Final = "libnftables.so.1"
PROGRAM: Final = "nft"
MISSING: Final = (
    f"neither {LIBRARY} nor the program {PROGRAM} is here; "
    "install one of them (Debian: libnftables1, nftables)"
)
_JSON_OUTPUT: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON in nftables/libnftables.h
_SHOWN_CHARACTERS_MAX: Final = 500
_TIMEOUT_S: Final = 120.0


class NftRefused(Exception):
    """The kernel or nft did not want the orders; nothing has changed. The text says what they said."""


class Nft(Protocol):
    """Who carries out orders."""

    def run(self, orders: Iterable[Json]) -> list[Any]:
        """One transaction; what it lists, if it lists something. Raises NftRefused."""


def nft() -> Nft:
    """The best that this machine has. Raises NftRefused if there is none."""
    try:
        return Library()
    except OSError:
        if shutil.which(PROGRAM) is None:
            raise NftRefused(MISSING) from None
        return Program()


class Library:
    """libnftables in this process."""

    def __init__(self) -> None:
        """Raises OSError if it is not installed."""
        self._library = library = ctypes.CDLL(LIBRARY)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p

        # One for good: the kernel lets go of a closed one only after all that was removed is gone, which takes 14 ms.
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_output_set_flags(self._context, _JSON_OUTPUT)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, orders: Iterable[Json]) -> list[Any]:
        library, context = self._library, self._context
        failed = library.nft_run_cmd_from_buffer(context, json.dumps(document(orders)).encode())
        said = library.nft_ctx_get_error_buffer(context)  # reading empties both
        output = library.nft_ctx_get_output_buffer(context)
        if failed:
            raise NftRefused(_shown(said))
        return _listed(output)


class Program:
    """The program nft, once for each transaction."""

    def run(self, orders: Iterable[Json]) -> list[Any]:
        written = json.dumps(document(orders)).encode()
        try:
            done = subprocess.run(  # noqa: S603  # a fixed program; what it reads is ours
                [PROGRAM, "-j", "-f", "-"],
                input=written,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NftRefused(str(error)) from None
        if done.returncode:
            raise NftRefused(_shown(done.stderr))
        return _listed(done.stdout)


def _listed(output: bytes | None) -> list[Any]:
    found = json.loads(output)["nftables"] if output else []
    return [thing for thing in found if "metainfo" not in thing]


def _shown(said: bytes | None) -> str:
    """The first lines, in one."""
    text = (said or b"").decode(errors="replace")
    return (
        " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_SHOWN_CHARACTERS_MAX]
        or "nft failed"
    )
