"""The chains that are the same for every policy: who is let through, judged, taken up or refused. See `model`.

Whatever these chains do not let through is dropped at the end of `input` and `forward`. A packet is judged by the flow
that it belongs to (`ct original`), on its way there and back, so that a new table holds for flows that exist.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Final

from doorward.packetfilter.intervals import of_networks
from doorward.packetfilter.layout import ChainDef, CounterDef, Hook, SetDef, Span, addresses
from doorward.packetfilter.model import OPEN, Capture
from doorward.packetfilter.words import (
    ACCEPT,
    DROP,
    FLOW_MARK,
    IS_NEW,
    MARK,
    MASQUERADE,
    PROHIBITED,
    RESET,
    Phrase,
    among,
    concat,
    counted,
    ct,
    field,
    goto,
    in_state,
    jump,
    leads_to,
    masked,
    match,
    meta,
    no_route_back,
    redirect,
    set_flow_mark,
    set_mark,
    socket,
    tproxy,
)

COUNTERS: Final = (
    CounterDef("up", "came up to the service"),
    CounterDef("unanswered", "should have come up, and nobody was there"),
    CounterDef("opened", "came to an opening"),
    CounterDef("spoofed", "from an address that is not where it came from"),
    CounterDef("invalid", "belonged to no connection"),
    CounterDef("outside", "not from the clients' networks, or neither TCP nor UDP"),
)

CLIENTS: Final = {4: "clients4", 6: "clients6"}
KEPT: Final = {4: "kept4", 6: "kept6"}
INTERFACES: Final = "interfaces"
_IP: Final = {4: "ip", 6: "ip6"}
_NFPROTO: Final = {4: "ipv4", 6: "ipv6"}
_MANGLE: Final = -150
_FILTER: Final = 0
_DSTNAT: Final = -100
_SRCNAT: Final = 100
# Sources that belong to a link, and to a machine without an address yet.
_OF_LINKS: Final = {4: "0.0.0.0", 6: "fe80::/10"}
_ISATAP: Final = ("::fdff:ffff:0:0", "::5efe:0:0")
_ICMP: Final = among(meta("l4proto"), "icmp", "ipv6-icmp")
_STREAMS: Final = among(meta("l4proto"), "tcp", "udp")
_TCP: Final = match(meta("l4proto"), "tcp")
_UDP: Final = match(meta("l4proto"), "udp")
_THERE: Final = match(ct("direction"), "original")
_BACK: Final = match(ct("direction"), "reply")
# What IPv6 does not work without on a link (RFC 4890 section 4.4.1).
_NEIGHBOURS: Final = among(
    field("icmpv6", "type"),
    "nd-router-solicit",
    "nd-router-advert",
    "nd-neighbor-solicit",
    "nd-neighbor-advert",
    "mld-listener-query",
    "mld-listener-report",
    "mld-listener-done",
)

Rule = tuple[Phrase, ...]


def allowed_mark(capture: Capture) -> int:
    """On packets that the kernel's part of the policy has allowed."""
    return capture.mark + 1


def _redirect_mark(capture: Capture) -> int:
    return capture.mark + 2


def sets(capture: Capture) -> tuple[SetDef, ...]:
    """Openings, the clients' networks, and their interfaces."""
    networks = [ip_network(text) for text in capture.networks]
    found = []
    for version, name in OPEN.items():
        kind = f"ipv{version}_addr"
        found.append(SetDef(name, (kind, "inet_proto", kind, "inet_service"), ("interval", "timeout")))
        spans = [addresses(version, first, last) for first, last in of_networks(networks, version)]
        found.append(SetDef(CLIENTS[version], (kind,), ("interval",), tuple(spans)))
        kept = of_networks(map(ip_network, (*capture.networks, *capture.keep_source)), version)
        found.append(
            SetDef(KEPT[version], (kind,), ("interval",), tuple(addresses(version, *span) for span in kept))
        )
    if capture.interfaces:
        spans = [Span(name, name) for name in capture.interfaces]
        found.append(SetDef(INTERFACES, ("ifname",), (), tuple(spans)))
    return tuple(found)


def chains(capture: Capture) -> tuple[ChainDef, ...]:
    """The chains, without those of the policy's tree: `judge` and `judge-own`."""
    found = [
        ChainDef("prerouting", tuple(_prerouting(capture)), Hook("filter", "prerouting", _MANGLE, "accept")),
        ChainDef("input", tuple(_input(capture)), Hook("filter", "input", _FILTER, "drop")),
        ChainDef("forward", tuple(_forward(capture)), Hook("filter", "forward", _FILTER, "drop")),
        ChainDef("own", tuple(_own(capture))),
        ChainDef("clients", ((jump("judge"),), (goto("judged"),))),
        ChainDef("judged", tuple(_judged(capture))),
        ChainDef("refuse", tuple(_refuse())),
        ChainDef("rejected", ((_TCP, RESET), (PROHIBITED,))),
    ]
    if capture.tcp_method == "redirect":
        marked = match(MARK, _redirect_mark(capture))
        rule = (marked, _TCP, redirect(capture.tcp_port))
        found.append(ChainDef("redirected", (rule,), Hook("nat", "prerouting", _DSTNAT, "accept")))
    marked = match(MARK, allowed_mark(capture))
    masquerading = tuple(
        (marked, match(field(_IP[v], "daddr"), f"@{KEPT[v]}", "!="), MASQUERADE) for v in (4, 6)
    )
    found.append(ChainDef("masqueraded", masquerading, Hook("nat", "postrouting", _SRCNAT, "accept")))
    return tuple(found)


def _prerouting(capture: Capture) -> list[Rule]:
    taken = (set_mark(capture.mark), ACCEPT)
    ours = (match(socket("transparent"), 1), match(socket("wildcard"), 0))
    rules: list[Rule] = [
        (match(meta("iifname"), "lo"), ACCEPT),
        (among(MARK, *_marks(capture)), set_mark(0)),  # nobody else's packet is to look like one of ours
        (match(meta("l4proto"), "tcp", "!="), match(meta("l4proto"), "udp", "!="), ACCEPT),
        (in_state("invalid", "untracked"), counted("invalid"), DROP),
        (match(FLOW_MARK, capture.mark), *taken),  # it came by an opening, which may be gone by now
        (_TCP, *ours, *taken),
        (_UDP, _BACK, *ours, *taken),
        (_BACK, ACCEPT),
    ]
    for v in (4, 6):
        source = field(_IP[v], "saddr")
        strange = (match(source, f"@{CLIENTS[v]}", "!="), match(source, _OF_LINKS[v], "!="))
        rules.append((match(source, f"@{CLIENTS[v]}"), no_route_back(), counted("spoofed"), DROP))
        if capture.interfaces:
            inside = match(meta("iifname"), f"@{INTERFACES}")
            rules.append((inside, *strange, counted("spoofed"), DROP))
    for v in (4, 6):
        there = concat(field(_IP[v], "saddr"), meta("l4proto"), field(_IP[v], "daddr"), field("th", "dport"))
        rules.append(
            (match(there, f"@{OPEN[v]}"), IS_NEW, counted("opened"), set_flow_mark(capture.mark), *taken)
        )
    rules.append((leads_to("local", "broadcast", "multicast", "anycast"), goto("own")))
    rules += [(match(field(_IP[v], "saddr"), f"@{CLIENTS[v]}"), goto("clients")) for v in (4, 6)]
    return rules


def _input(capture: Capture) -> list[Rule]:
    return [
        (match(meta("iifname"), "lo"), ACCEPT),
        (among(MARK, *_marks(capture)), ACCEPT),
        (in_state("established"), ACCEPT),
        (_ICMP, in_state("related"), ACCEPT),
        (_NEIGHBOURS, ACCEPT),
        (counted("outside"),),
    ]


def _forward(capture: Capture) -> list[Rule]:
    allowed = (match(MARK, allowed_mark(capture)), ACCEPT)
    return [
        allowed,
        (_BACK, in_state("established"), _STREAMS, jump("judge")),
        allowed,
        (_ICMP, in_state("related"), ACCEPT),
        (counted("outside"),),
    ]


def _own(capture: Capture) -> list[Rule]:
    """What is for this machine comes up for clients only: strangers have no business with what we answer them."""
    clients = [(match(field(_IP[v], "saddr"), f"@{CLIENTS[v]}"), goto("judged")) for v in (4, 6)]
    return [(jump("judge-own"),), (match(MARK, allowed_mark(capture)), ACCEPT), *clients, (goto("refuse"),)]


def _judged(capture: Capture) -> list[Rule]:
    taken = (set_mark(capture.mark), ACCEPT)
    rules: list[Rule] = [(match(MARK, allowed_mark(capture)), ACCEPT), (IS_NEW, counted("up"))]
    if capture.tcp_method == "redirect":
        rules.append((_TCP, set_mark(_redirect_mark(capture)), ACCEPT))
    else:
        rules.append((_TCP, tproxy(capture.tcp_port), *taken))
    rules.append((_UDP, tproxy(capture.udp_port), *taken))
    rules.append((counted("unanswered"), goto("refuse")))
    return rules


def _refuse() -> list[Rule]:
    """Clients are told, and so is the other end of a flow that was allowed before; strangers are not."""
    clients = [(match(field(_IP[v], "saddr"), f"@{CLIENTS[v]}"), goto("rejected")) for v in (4, 6)]
    return [*clients, (_BACK, goto("rejected")), (DROP,)]


def isatap(end: Phrase) -> list[Rule]:
    """IPv6 addresses that hold an IPv4 address as ISATAP has it (RFC 5214) are not judged here."""
    mask, value = _ISATAP
    return [(match(masked(ct(f"ip6 {name}", "original"), mask), value), end) for name in ("saddr", "daddr")]


def _marks(capture: Capture) -> tuple[int, ...]:
    return capture.mark, allowed_mark(capture), _redirect_mark(capture)
