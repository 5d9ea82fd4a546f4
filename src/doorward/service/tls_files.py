"""TLS contexts made from files, once for as long as the files do not change.

Reading and parsing is done in a thread: a certificate may lie on a disk that takes its time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from doorward.api.errors import BadArgument
from doorward.net.tls_context import Identity, client_context, server_context

# Contexts of one filter; each holds its certificates, some 100 KB.
CONTEXTS_MAX: Final = 64

Version: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Wanted(NamedTuple):
    """What a filter asks for. File names may be absent where the side does not need them."""

    side: Literal["server", "client"]
    alpn: tuple[str, ...]
    certificate_file: str | None
    key_file: str | None
    ca_file: str | None
    ask_client_certificate: Literal["no", "optional", "required"]
    verify: bool


class TLSContexts:
    """See the module."""

    def __init__(self) -> None:
        self._known: OrderedDict[Wanted, tuple[Version, ssl.SSLContext]] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._known)

    async def get(self, wanted: Wanted) -> ssl.SSLContext:
        """The context for this, from the files as they are now. Raises BadArgument for what cannot be used."""
        async with self._one_at_a_time:  # a burst of connections builds it once
            known = self._known.get(wanted)
            loop = asyncio.get_running_loop()
            version, context = await loop.run_in_executor(None, _current, wanted, known)
            self._known[wanted] = version, context
            self._known.move_to_end(wanted)
            while len(self._known) > CONTEXTS_MAX:
                self._known.popitem(last=False)
            return context


def _current(wanted: Wanted, known: tuple[Version, ssl.SSLContext] | None) -> tuple[Version, ssl.SSLContext]:
    """Blocks. The version is taken first: what changes meanwhile is read again next time."""
    version = tuple(
        _version(name) for name in (wanted.certificate_file, wanted.key_file, wanted.ca_file) if name
    )
    if known is not None and known[0] == version:
        return known
    return version, _made(wanted)


def _version(name: str) -> tuple[int, int, int] | None:
    try:
        found = Path(name).stat()
    except (OSError, ValueError):
        return None  # whoever reads it will say what is wrong
    return found.st_mtime_ns, found.st_size, found.st_ino


def _made(wanted: Wanted) -> ssl.SSLContext:
    identity = None
    if wanted.certificate_file is not None:
        identity = Identity(wanted.certificate_file, wanted.key_file)
    elif wanted.key_file is not None:
        raise BadArgument("a key is named, and no certificate that it belongs to")
    if wanted.side == "client":
        if wanted.ask_client_certificate != "no":
            raise BadArgument("only a server asks for a client's certificate")
        return client_context(ca=wanted.ca_file, identity=identity, alpn=wanted.alpn, verify=wanted.verify)
    if identity is None:
        raise BadArgument("a server needs a certificate: certificate_file")
    return server_context(
        identity, alpn=wanted.alpn, ask_client=wanted.ask_client_certificate, ca=wanted.ca_file
    )
