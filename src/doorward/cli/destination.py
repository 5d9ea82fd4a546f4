"""What people write for a destination and a moment on the command line."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from doorward.engine.target import ANY_PEER, Target, target_of
from doorward.policy.model import INBOUND, TRANSPORTS, Transport
from doorward.policy.schedule import parse_days, parse_hours

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ssh": 22, "ftp": 21, "git": 9418}


class Destination(NamedTuple):
    """A target; `application` is `http` when a plain HTTP request was meant.

    Inbound, the target is the peer that arrives and the port is ours; neither name nor address is a peer that nobody
    knows yet.
    """

    target: Target
    application: str | None
    transport: Transport = "tcp"

    def __str__(self) -> str:
        return f"{self.transport}://{self.target}"


def parse_destination(text: str) -> Destination:
    """`tcp://host:port`, `udp://…`, `tcp-in://peer:our-port`, `http://host[:port]/…`, `https://host`, or `host:port`.

    `tcp-in://*:5000` is a port of ours before anybody has arrived there. Raises ValueError with a sentence.
    """
    parts = urlsplit(text if "://" in text else f"tcp://{text}")
    try:
        port = DEFAULT_PORTS.get(parts.scheme) if parts.port is None else parts.port
    except ValueError as error:
        raise ValueError(f'"{text}": {error}') from None
    host = parts.netloc.rpartition("@")[2]
    if parts.port is not None:
        host = host.rpartition(":")[0]
    if parts.scheme not in TRANSPORTS and parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f'"{text}": unknown scheme; write tcp://host:port or udp://host:port')
    if parts.scheme in INBOUND:
        return _arriving(text, host, port, parts.scheme)
    if not host or not port:
        raise ValueError(f'"{text}" needs a host and a port: tcp://host:port')
    target = target_of(host.strip("[]"), port)
    return Destination(
        target, "http" if parts.scheme == "http" else None, "udp" if parts.scheme == "udp" else "tcp"
    )


def _arriving(text: str, peer: str, port: int | None, transport: Transport) -> Destination:
    target = None
    if port is not None and peer == ANY_PEER:
        target = Target(None, None, port)
    elif port is not None and peer:
        target = target_of(peer.strip("[]"), port)
    if target is None or target.host is not None:
        example = f"{transport}://192.0.2.1:5000, or {transport}://{ANY_PEER}:5000 before one is known"
        raise ValueError(f'"{text}" needs the address of a peer and a port of ours: {example}')
    return Destination(target, None, transport)


def parse_moment(text: str | None, now: datetime) -> datetime:
    """`2026-11-20T10:00`, `fri 10:00` (that day of this week), `10:00` (today); None is now. Raises ValueError."""
    if text is None:
        return now
    *day, hour = text.lower().split() or [""]
    if ":" in hour and "-" not in hour and (not day or (len(day) == 1 and day[0].isalpha())):
        minutes = parse_hours(f"{hour}-24:00")[0]
        weekday = parse_days(day[0])[0] if day else now.weekday()
        moved = now.replace(hour=minutes // 60, minute=minutes % 60, second=0, microsecond=0)
        return moved.fromordinal(now.toordinal() + weekday - now.weekday()).replace(
            hour=moved.hour, minute=moved.minute, tzinfo=now.tzinfo
        )
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a time: write 2026-11-20T10:00, "fri 10:00" or 10:00') from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)
