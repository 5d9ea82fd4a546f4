"""The proxies that are measured. `PEERS` is the table; adding a proxy means adding a row.

Every proxy listens on loopback, lets the bench through, keeps its files in a temporary directory, and logs as its
users would have it. What is configured stands in ours.py and others.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from bench import others, ours
from bench.load import Via
from bench.peer import STREAMS, WITH_DATAGRAMS, Peer, Place

DEFAULT = (
    *(
        "direct",
        "doorward",
        "doorward-workers",
        "haproxy",
        "haproxy-pipes",
        "haproxy-copy",
        "haproxy-threads",
    ),
    *("nginx", "dante", "microsocks", "squid", "mitmproxy", "mitmproxy-unread", "pproxy", "proxy.py"),
    *("doorward-search", "mitmproxy-search", "mitmproxy-search-forgets"),
)

_FEW = frozenset({"connections", "messages"})
_FILTERED = frozenset({"filter"})
DIRECT_TAKES_PART_IN = WITH_DATAGRAMS | _FILTERED

_THREADS = os.cpu_count() or 1
_DOORWARD_HOW = (
    f"the bench's rule is in the middle of {ours.RULES - 1} others, "
    "every connection is recorded in the log store"
)
_SPLICE = (
    "TCP mode to one target (no SOCKS, no rules), one thread, no log; splice-request and splice-response"
)
_RAW = "mitmdump -q, every host as raw TCP (each chunk is an event, as it is made for), no log"
_UNREAD = "mitmdump -q, every host ignored (bytes passed on unread, the least work it can do), no log"
_STREAM_MODULE = (others.NGINX_STREAM_MODULE, "nginx's stream module (libnginx-mod-stream)")
_SQUID = "CONNECT, one worker, one rule that allows it, access log on, no cache"


def _doorward(
    name: str,
    how: str,
    prepare: Callable[[Place], list[str]] = ours.plain,
    *,
    via: Via = "socks5",
    takes_part_in: frozenset[str] = STREAMS,
) -> Peer:
    version = ("-m", "doorward", "--version")
    return Peer(name, via, f"{how}{_DOORWARD_HOW}", sys.executable, version, prepare, takes_part_in)


def _haproxy(
    name: str, how: str, prepare: Callable[[Place], list[str]], takes_part_in: frozenset[str] = STREAMS
) -> Peer:
    return Peer(name, "forward", how, "haproxy", ("-v",), prepare, takes_part_in)


def _mitmproxy(
    name: str, via: Via, how: str, prepare: Callable[[Place], list[str]], part: frozenset[str] = STREAMS
) -> Peer:
    return Peer(name, via, how, "mitmdump", ("--version",), prepare, part)


PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        _doorward("doorward", "", takes_part_in=WITH_DATAGRAMS),
        _doorward("doorward-workers", f"{ours.WORKERS} workers; ", ours.workers),
        _doorward(
            "doorward-search",
            "one filter that searches every chunk; ",
            ours.search,
            takes_part_in=_FILTERED,
        ),
        _doorward("doorward-connect", "HTTP CONNECT; ", via="connect"),
        _doorward("doorward-handler", "one filter hears of every connect; ", ours.hears("any")),
        _doorward("doorward-uninterested", "one filter, for another port; ", ours.hears("tcp/9")),
        _haproxy("haproxy", f"{_SPLICE}, pipes of 64 KiB as by default", others.haproxy(splice=True)),
        _haproxy(
            "haproxy-pipes",
            f"{_SPLICE}, tune.pipesize 1048576",
            others.haproxy(splice=True, tuning="tune.pipesize 1048576"),
        ),
        _haproxy(
            "haproxy-copy",
            "TCP mode to one target, one thread, no log, copying",
            others.haproxy(splice=False),
        ),
        _haproxy(
            "haproxy-threads",
            f"as haproxy-copy, {_THREADS} threads",
            others.haproxy(splice=False, threads=_THREADS),
            _FEW,
        ),
        Peer(
            "nginx",
            "forward",
            "stream module, TCP to one target, one worker process, no log",
            "nginx",
            ("-v",),
            others.nginx,
            needs=_STREAM_MODULE,
        ),
        Peer(
            "dante",
            "socks5",
            "pass all; connect, disconnect and error logged to a file",
            "danted",
            ("-v",),
            others.dante,
            WITH_DATAGRAMS,
        ),
        Peer(
            "microsocks",
            "socks5",
            "no rules; each connection logged to its output, a file",
            "microsocks",
            (),
            others.microsocks,
        ),
        Peer("squid", "connect", _SQUID, "squid", ("-v",), others.squid),
        _mitmproxy("mitmproxy", "socks5", _RAW, others.mitmproxy("socks5")),
        _mitmproxy("mitmproxy-unread", "socks5", _UNREAD, others.mitmproxy("socks5", unread=True)),
        _mitmproxy(
            "mitmproxy-connect",
            "connect",
            f"HTTP CONNECT (mode regular); {_UNREAD}",
            others.mitmproxy("regular", unread=True),
        ),
        _mitmproxy(
            "mitmproxy-search",
            "socks5",
            "mitmdump -q, every host as raw TCP, an addon searches every chunk; no log",
            others.mitmproxy_search(forgets=False),
            _FILTERED,
        ),
        _mitmproxy(
            "mitmproxy-search-forgets",
            "socks5",
            "as mitmproxy-search, and the addon throws away what it has searched, or mitmproxy keeps every chunk",
            others.mitmproxy_search(forgets=True),
            _FILTERED,
        ),
        Peer(
            "pproxy",
            "socks5",
            "SOCKS5, no rules, no log; on uvloop where that is installed beside it",
            "pproxy",
            ("--version",),
            others.pproxy,
        ),
        Peer(
            "proxy.py",
            "connect",
            "CONNECT, an acceptor for each core, as by default; access log to a file",
            "proxy",
            ("--version",),
            others.proxy_py,
        ),
    )
}
