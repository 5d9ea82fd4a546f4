"""The transparent gateway in force. As with listeners, everything that can fail is done before the swap.

A socket that was bound once stays bound for as long as the policy has that port, so a reload loses nobody who waits.
What only the table says of who and where is changed in place; for another method the way in is made anew.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from doorward.api.errors import DoorwardError
from doorward.capture.sockets import Place, refusing
from doorward.capture.wayside import ANY, bound, take_others_traffic, why_no_right, why_nothing_arrives
from doorward.net.datagrams import has_ipv6
from doorward.packetfilter.model import MARK
from doorward.service.listeners import CannotListen

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.config.model import Transparent
    from doorward.engine.engine import Engine
    from doorward.entry.transparent import TransparentEntry

_CANNOT: Final = "cannot take traffic transparently"


class CannotTakeTraffic(CannotListen):
    """The gateway cannot work as the policy says. The message says why, and what to do."""


class Prepared(NamedTuple):
    """What is to be in force: its settings and its way in, and every socket that is bound."""

    settings: Transparent | None
    entry: TransparentEntry | None
    held: dict[Place, socket.socket]


class TransparentGateway:
    """See the module."""

    def __init__(self, engine: Engine, log: Any, has_room: Callable[[], bool], descriptors: int) -> None:
        """`has_room` says whether one more connection fits; `descriptors` are all that this process may have."""
        self._engine = engine
        self._descriptors = descriptors
        self._log = log
        self._has_room = has_room
        self._now = Prepared(None, None, {})
        self.first = Prepared(None, None, {})  # what the start has prepared, until it is in force

    def prepare(self, settings: Transparent | None) -> Prepared:
        """Everything that can fail. `commit` or `abandon` must follow. Raises CannotTakeTraffic."""
        if settings is None:
            return Prepared(None, None, {})
        held: dict[Place, socket.socket] = {}
        try:
            for place in _places(settings):
                held[place] = self._now.held.get(place) or bound(place)
                if _is_for_others(settings, place):
                    take_others_traffic(held[place])
            _expect_ready(settings)
            return Prepared(settings, self._entry(settings, held), held)
        except BaseException as error:
            self.abandon(Prepared(settings, None, held))
            if isinstance(error, OSError):
                raise CannotTakeTraffic(_why(error, settings)) from error
            raise

    def abandon(self, prepared: Prepared) -> None:
        """Go on as if nothing had been prepared."""
        if prepared.entry is not None and prepared.entry is not self._now.entry:
            prepared.entry.close()
        for place in prepared.held.keys() - self._now.held.keys():
            prepared.held[place].close()

    def commit(self, prepared: Prepared) -> None:
        """From now on this, and nothing else."""
        before, self._now, self.first = self._now, prepared, Prepared(None, None, {})
        if before.entry is not None and before.entry is not prepared.entry:
            before.entry.close()
        for place in before.held.keys() - prepared.held.keys():
            before.held[place].close()
        settings, entry = prepared.settings, prepared.entry
        if settings is None or entry is None:
            return
        if entry is before.entry:
            entry.configure(settings)
            return
        entry.start()
        self._log.info(
            "traffic is taken transparently",
            port=settings.port,
            method=settings.method,
            udp=settings.udp,
            interfaces=", ".join(settings.interfaces),
        )

    def close(self) -> None:
        """Take nothing more. TCP that is being served goes on; datagrams do not. Idempotent."""
        self.commit(Prepared(None, None, {}))

    def _entry(self, settings: Transparent, held: dict[Place, socket.socket]) -> TransparentEntry:
        """The one in force if it has the same sockets, else a new one. Raises CannotTakeTraffic, OSError."""
        now = self._now
        if now.entry is not None and now.held == held and now.entry.settings.method == settings.method:
            return now.entry
        # Here, since most are no gateway, and a launched program waits for everything that is imported.
        from doorward.entry.transparent import TransparentEntry, TransparentSockets

        sockets = TransparentSockets([], [], {})
        try:
            for place, sock in held.items():
                lent = sock.dup()
                lent.setblocking(False)
                (sockets.tcp if place.kind == "tcp" else sockets.udp).append(lent)
                if place.kind == "udp":
                    sockets.refusing.update(_refusing(place.version))
            return TransparentEntry(self._engine, settings, sockets, self._has_room, self._descriptors)
        except BaseException as error:
            sockets.close()
            if isinstance(error, DoorwardError):
                raise CannotTakeTraffic(f"{_CANNOT}: {error.detail}") from error
            raise


def _places(settings: Transparent) -> list[Place]:
    versions = (4, 6) if has_ipv6() else (4,)
    places = [Place("tcp", ANY[version], settings.port) for version in versions]
    return places + [Place("udp", ANY[version], settings.port) for version in versions if settings.udp]


def _is_for_others(settings: Transparent, place: Place) -> bool:
    """Whether what arrives there still has its destination."""
    return place.kind == "udp" or settings.method == "tproxy" or bool(settings.keep_source)


def _refusing(version: int) -> dict[int, socket.socket]:
    try:
        return {version: refusing(version)}
    except OSError:
        return {}  # without CAP_NET_RAW: who is refused finds out by waiting


def _expect_ready(settings: Transparent) -> None:
    """Raises CannotTakeTraffic unless what is marked by the packet filter arrives here."""
    if settings.method == "redirect" and not settings.udp and not settings.keep_source:
        return
    versions = sorted({place.version for place in _places(settings)})
    why = why_nothing_arrives(MARK, versions)
    if why:
        raise CannotTakeTraffic(f"{_CANNOT}: {why}; docs/gateway.md has the whole of it")


def _why(error: OSError, settings: Transparent) -> str:
    if error.errno == errno.EPERM:
        return f"{_CANNOT}: {why_no_right(error)}"
    return f"{_CANNOT} at port {settings.port}: {os.strerror(error.errno or 0)}"
