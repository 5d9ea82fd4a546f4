"""Every error that Doorward raises, in one small tree.

    DoorwardError
    ├── CallError             a filter called something where it is not legal; the filter's mistake
    │   ├── BadContext            attach, deny, emulate outside the handlers that allow them
    │   ├── NotConnected          the outer leg does not exist yet
    │   ├── AlreadyEmulated       another filter has claimed it before
    │   ├── NotEmulated           only an emulator may call this, or only for what is emulated
    │   ├── NotSupported          this object has no such operation
    │   ├── BadArgument           a value that cannot be meant
    │   ├── AlreadyExists         given once before, and once is all
    │   ├── NotFound              there is no such filter, bind or protocol
    │   └── Terminating           the object is gone or going
    ├── AccessDenied          policy or a filter refused what a filter asked for in a client's name
    ├── LinkError             the world said no, or a peer went away
    │   ├── NameNotFound          the name has no address
    │   ├── ConnectionRefused     the peer, or its host, refused
    │   ├── Unreachable           no route, or a router said so
    │   ├── TimedOut              a deadline passed
    │   │   └── HandshakeTimedOut     a client's, before it had asked for anything
    │   ├── PeerReset             the peer reset the connection
    │   │   └── TLSTruncated          the wire under TLS ended, and TLS had not
    │   ├── TLSFailed             no TLS with this peer, or no more
    │   │   └── TLSUntrusted          the peer's certificate was not accepted
    │   ├── AddressInUse          the address or port to listen on is taken, or not ours
    │   ├── UpstreamError         another firewall that the connection was to go through
    │   │   ├── UpstreamUnavailable   it cannot be reached, or does not speak as it should
    │   │   ├── UpstreamLoginRefused  it does not accept who we say we are
    │   │   ├── UpstreamRefused       it refused the destination, or could not reach it
    │   │   ├── UpstreamNoUdp         the way leads through it, and it carries no datagrams
    │   │   └── UpstreamNoBind        the way leads through it, and it cannot listen for us
    │   ├── ServersDown           none of a published server's machines can be reached
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
    ADDRESS_IN_USE = "address in use"
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


class AlreadyEmulated(CallError):
    """A connection is emulated by one filter only; the first claim stands."""

    slug = "already_emulated"


class NotEmulated(CallError):
    """Legal for emulated connections only: what the firewall carries itself, it counts and names itself."""

    slug = "not_emulated"


class NotSupported(CallError):
    """This object cannot do that: datagrams on a stream, say, or an accept on what does not listen."""

    slug = "not_supported"


class BadArgument(CallError):
    """A value that cannot be meant. The detail names it."""

    slug = "bad_argument"


class AlreadyExists(CallError):
    """It was given before, and can be given once."""

    slug = "already_exists"


class NotFound(CallError):
    """There is nothing of that name or address."""

    slug = "not_found"


class Terminating(CallError):
    """The connection, socket or session has ended."""

    slug = "terminating"


class AccessDenied(DoorwardError):
    """What a filter asked for in a client's name is not allowed to that client. `reason` is policy's, or a filter's."""

    slug = "access_denied"
    hint = ReplyHint.NOT_ALLOWED

    def __init__(
        self, reason: str = "access_denied", detail: str = "", *, hint: ReplyHint = ReplyHint.NOT_ALLOWED
    ) -> None:
        super().__init__(detail or reason)
        self._reason = slug_or(reason, self.slug)
        self.hint = hint  # type: ignore[misc]  # of this refusal, in place of the class's

    @property
    def reason(self) -> str:
        return self._reason


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


class TLSTruncated(PeerReset):
    """The wire ended without the peer's close_notify: whether that was all it had to say, nobody knows."""

    slug = "tls_truncated"


class TLSFailed(LinkError):
    """The handshake failed, or a record was not what TLS allows. The detail is OpenSSL's reason."""

    slug = "tls_failed"


class TLSUntrusted(TLSFailed):
    """The peer's certificate was not accepted: of an unknown authority, expired, or not for the name asked for."""

    slug = "tls_untrusted"


class AddressInUse(LinkError):
    """The address to listen on is taken, or is none of this machine's."""

    slug = "address_in_use"
    hint = ReplyHint.ADDRESS_IN_USE


class UpstreamError(LinkError):
    """Another firewall, the upstream of that name, on the way to the destination."""

    slug = "upstream_unavailable"

    def __init__(self, detail: str = "", *, upstream: str = "", side: Side = Side.OURS) -> None:
        super().__init__(f'upstream "{upstream}": {detail}' if upstream else detail, side=side)
        self.upstream = upstream


class UpstreamUnavailable(UpstreamError):
    """It could not be reached, or broke off. `asked`: once it knew the destination, which may be the cause."""

    retry = True
    asked = False


class UpstreamLoginRefused(UpstreamError):
    """It wants a login that we do not have, or refuses the one that we have."""

    slug = "upstream_login_refused"


class UpstreamRefused(UpstreamError):
    """It answered that it will not or cannot connect to the destination; `hint` says which, as far as it did."""

    slug = "upstream_refused"

    def __init__(
        self,
        detail: str = "",
        *,
        upstream: str = "",
        side: Side = Side.OURS,
        hint: ReplyHint = ReplyHint.FAILED,
    ) -> None:
        super().__init__(detail, upstream=upstream, side=side)
        self.hint = hint  # type: ignore[misc]  # of this answer, in place of the class's


class UpstreamNoUdp(UpstreamError):
    """Datagrams whose way leads through an upstream are not sent at all."""

    slug = "upstream_no_udp"
    hint = ReplyHint.NOT_ALLOWED


class UpstreamNoBind(UpstreamError):
    """A peer cannot come through an upstream, so nobody listens for it here either."""

    slug = "upstream_no_bind"
    hint = ReplyHint.NOT_ALLOWED


class ServersDown(LinkError):
    """None of the machines behind a published server can be reached. The detail has each, and why."""

    slug = "servers_down"
    hint = ReplyHint.REFUSED
    retry = True


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
