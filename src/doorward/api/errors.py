"""Every error that Doorward raises, in one small tree.

    DoorwardError
    ├── CallError             a filter called something where it is not legal; the filter's mistake
    │   ├── BadContext            attach, deny, emulate outside the handlers that allow them
    │   ├── NotConnected          the outer leg does not exist yet
    │   └── Terminating           the object is gone or going
    ├── LinkError             the world said no, or a peer went away
    │   ├── NameNotFound          the name has no address
    │   ├── ConnectionRefused     the peer, or its host, refused
    │   ├── Unreachable           no route, or a router said so
    │   ├── TimedOut              a deadline passed
    │   │   └── HandshakeTimedOut     a client's, before it had asked for anything
    │   ├── PeerReset             the peer reset the connection
    │   ├── ByteLimitReached      the policy's limit of bytes
    │   └── OutOfResources        descriptors, memory, ports, or a table's cap
    └── FilterError           a filter ended its own connection
        ├── Refuse                on purpose: raise it in a data filter
        ├── FilterFailed          it raised something else
        └── FilterStalled         it did not come back in time

Each error carries the side that caused it, a stable slug that log and clients are shown (docs/reasons.md),
whether trying again makes sense, and a hint that a front end translates into its protocol's reply.
A refusal by policy is no error: it is a `Decision`.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final


class Side(enum.StrEnum):
    """Who caused it: the client's leg, the server's leg, or the firewall itself."""

    INTERNAL = "internal"
    EXTERNAL = "external"
    OURS = "ours"


class ReplyHint(enum.StrEnum):
    """What a client should be told, before it is put into SOCKS codes or HTTP status numbers."""

    NOT_ALLOWED = "not allowed"
    NEEDS_USER = "needs user"
    NAME_NOT_FOUND = "name not found"
    REFUSED = "refused"
    NETWORK_UNREACHABLE = "network unreachable"
    HOST_UNREACHABLE = "host unreachable"
    TIMED_OUT = "timed out"
    BUSY = "busy"
    FAILED = "failed"


SLUG_CHARACTERS_MAX: Final = 64


class DoorwardError(Exception):
    """The root. `detail` is for people and may hold what the network said: escape it before showing it."""

    slug: ClassVar[str] = "failed"
    hint: ClassVar[ReplyHint] = ReplyHint.FAILED
    retry: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, side: Side = Side.OURS) -> None:
        super().__init__(detail or self.slug)
        self.detail = detail
        self.side = side

    @property
    def reason(self) -> str:
        """The slug under which this goes on record."""
        return self.slug


class CallError(DoorwardError):
    """A call that is not legal here."""

    slug = "bad_call"


class BadContext(CallError):
    """Called outside the event handlers that allow it."""

    slug = "bad_context"


class NotConnected(CallError):
    """The outer leg does not exist yet."""

    slug = "not_connected"


class Terminating(CallError):
    """The connection, socket or session has ended."""

    slug = "terminating"


class LinkError(DoorwardError):
    """Something outside the firewall failed."""

    slug = "link_failed"


class NameNotFound(LinkError):
    """The name has no address, or the resolver said so."""

    slug = "name_not_found"
    hint = ReplyHint.NAME_NOT_FOUND


class ConnectionRefused(LinkError):
    """The server's host answered that nobody listens."""

    slug = "connection_refused"
    hint = ReplyHint.REFUSED
    retry = True


class Unreachable(LinkError):
    """No route to the host or its network."""

    slug = "unreachable"
    hint = ReplyHint.HOST_UNREACHABLE
    retry = True


class TimedOut(LinkError):
    """A deadline passed: connecting, resolving, a handshake, or silence for too long."""

    slug = "timed_out"
    hint = ReplyHint.TIMED_OUT
    retry = True


class HandshakeTimedOut(TimedOut):
    """A client did not finish what it began to ask for."""

    slug = "handshake_timeout"


class PeerReset(LinkError):
    """The peer reset the connection (RST), or it broke."""

    slug = "reset"


class ByteLimitReached(LinkError):
    """More bytes than the policy lets through in one direction of a connection."""

    slug = "byte_limit"
    hint = ReplyHint.NOT_ALLOWED


class OutOfResources(LinkError):
    """Descriptors, memory, ports or a table's cap are used up; old connections go on."""

    slug = "out_of_resources"
    hint = ReplyHint.BUSY
    retry = True


class FilterError(DoorwardError):
    """A filter ended its own connection, and no other."""

    slug = "filter_failed"
    hint = ReplyHint.NOT_ALLOWED


class Refuse(FilterError):
    """Raise it in a data filter to end the connection on purpose; `reason` is a slug of the filter's own.

    A slug is 1 to 64 of `a-z 0-9 _ -`; anything else becomes `refused_by_filter`, with the text kept as detail.
    """

    slug = "refused_by_filter"

    def __init__(self, reason: str = "refused_by_filter", detail: str = "") -> None:
        super().__init__(detail or reason)
        self._reason = slug_or(reason, self.slug)

    @property
    def reason(self) -> str:
        return self._reason


class FilterFailed(FilterError):
    """A filter raised something that is none of our errors."""

    slug = "filter_failed"


class FilterStalled(FilterError):
    """A filter held an event past its deadline, or the loop for too long."""

    slug = "filter_stalled"


def slug_or(reason: str, otherwise: str) -> str:
    """`reason` if it is a slug (see `Refuse`), else `otherwise`."""
    plain = reason.replace("_", "").replace("-", "")
    is_slug = (
        0 < len(reason) <= SLUG_CHARACTERS_MAX
        and plain.isascii()
        and plain.isalnum()
        and reason == reason.lower()
    )
    return reason if is_slug else otherwise
