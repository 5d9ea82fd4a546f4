"""`doorward explain`: what the policy says to a connection, and why. Nothing is connected; a name may be looked up."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from doorward.api.errors import DoorwardError, UpstreamNoBind, UpstreamNoUdp
from doorward.api.events import EventKind
from doorward.api.filters import ClientKind
from doorward.capture.executable import find
from doorward.cli.common import fail, policy_option, read_policy
from doorward.cli.destination import Destination, parse_destination, parse_moment
from doorward.config.model import Configuration
from doorward.engine.association import Associations, Way
from doorward.engine.judgement import is_leading_to, local_minute
from doorward.net.own_addresses import OwnAddresses
from doorward.net.resolve import Resolver
from doorward.policy.address import canonical
from doorward.policy.model import (
    INBOUND,
    UNKNOWN,
    Decision,
    Inputs,
    Transport,
    Tried,
    Unknown,
    names_of_process,
)
from doorward.policy.routes import DIRECT, Chosen
from doorward.service.filters import FilterNotLoaded, load_filters
from doorward.wire.printable import printable

# The events that there are on each way.
_HEARD: Final[Mapping[Transport, frozenset[EventKind]]] = {
    "tcp": frozenset({EventKind.CONNECT, EventKind.ESTABLISHED}),
    "udp": frozenset({EventKind.BIND, EventKind.UDP_DESTINATION}),
    "tcp-in": frozenset({EventKind.BIND, EventKind.LISTEN, EventKind.ACCEPT, EventKind.ESTABLISHED}),
    "udp-in": frozenset({EventKind.BIND, EventKind.UDP_DESTINATION}),
}


class Explained(NamedTuple):
    """One judgement: for the name alone, or for one of its addresses."""

    decision: Decision
    tried: tuple[Tried, ...]


@click.command("explain", short_help="Say what the policy answers to a connection, and why.")
@click.option(
    "--to",
    "to",
    required=True,
    metavar="tcp://HOST:PORT",
    help="The destination; udp://HOST:PORT and http://HOST/ work too. tcp-in://PEER:PORT and udp-in://… are a peer "
    "that arrives at a port of ours, with * for one not known yet.",
)
@click.option(
    "--from", "from_", default="127.0.0.1", show_default=True, metavar="ADDR", help="The client's address."
)
@click.option("--user", metavar="NAME", help="The user; without it, somebody who has not said who they are.")
@click.option(
    "--process",
    metavar="PROGRAM",
    help="The program that `doorward run` has launched; without it, no such client.",
)
@click.option("--at", metavar="TIME", help='When: 2026-11-20T10:00, "fri 10:00", 10:00. Without it, now.')
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--no-filters", is_flag=True, help="Do not run the code of filter files.")
@policy_option
def command(
    to: str,
    from_: str,
    user: str | None,
    process: str | None,
    at: str | None,
    as_json: bool,
    no_filters: bool,
    policy: Path | None,
) -> None:
    """Say what the policy answers, which rule decides, how every rule before it fared, and which filters would join."""
    configuration, _ = read_policy(policy)
    try:
        destination = parse_destination(to)
        moment = parse_moment(at, datetime.now().astimezone())
        ip_address(from_)
    except ValueError as error:
        fail(getattr(error, "detail", None) or str(error), 2)
    inputs = _inputs(configuration, destination, from_, user, moment)._replace(process=_names_of(process))
    explained, trouble = asyncio.run(_judge(configuration, inputs, destination))
    filters = [] if no_filters else _filters(configuration, destination, _best(explained).decision)
    if as_json:
        click.echo(json.dumps(_as_json(configuration, explained, filters, trouble)))
    else:
        _show(configuration, destination, explained, filters, trouble, moment)


def _inputs(
    configuration: Configuration, destination: Destination, from_: str, user: str | None, moment: datetime
) -> Inputs:
    groups: frozenset[str] = frozenset()
    asked: str | Unknown = UNKNOWN
    if user is not None:
        known = configuration.users.get(user)
        if known is None:
            fail(f'the policy has no user "{user}"', 2)
        asked, groups = known.name, known.groups
    host, address, port = destination.target
    own = address is not None and is_leading_to(address, OwnAddresses(time.monotonic).is_own)
    client = canonical(ip_address(from_.partition("%")[0]))
    known_address = UNKNOWN if address is None else address
    minute = local_minute(moment.timestamp())
    return Inputs(destination.transport, client, host, known_address, port, asked, groups, minute, own)


def _names_of(process: str | None) -> frozenset[str]:
    """What a program goes by that is launched by this word; it need not be there."""
    if process is None:
        return frozenset()
    found = find(process, os.get_exec_path())
    return names_of_process((process,) if found is None else (found.program, found.file))


async def _judge(
    configuration: Configuration, inputs: Inputs, destination: Destination
) -> tuple[list[Explained], str | None]:
    """As the engine would: the name first, each of its addresses only if the answer hangs on them."""
    policy = configuration.policy
    decision = policy.judge(inputs)
    first = Explained(decision, policy.explain(inputs))
    if decision.needs != "address" or destination.target.host is None:
        return [first], None
    resolver = Resolver(configuration.limits.resolve_timeout_s)
    own = OwnAddresses(time.monotonic)
    try:
        addresses = dict.fromkeys(canonical(a) for a in await resolver.resolve(destination.target.host))
    except DoorwardError as error:
        return [first], f"{error.reason}: {error.detail}"
    finally:
        resolver.close()
    explained = []
    for address in addresses:
        asked = inputs._replace(address=address, own=is_leading_to(address, own.is_own))
        explained.append(Explained(policy.judge(asked), policy.explain(asked)))
    return explained, None


def _filters(configuration: Configuration, destination: Destination, decision: Decision) -> list[str]:
    """Those that would hear of it; a mistake in any of them is said whatever the decision is."""
    try:
        loaded = load_filters(configuration.filters, configuration.protocols)
    except FilterNotLoaded as error:
        fail(str(error))
    associations = Associations([one.entry for one in loaded], configuration.protocols)
    if not _goes_on(decision):
        return []
    kind = ClientKind.HTTP if destination.application else ClientKind.SOCKS
    way = Way(destination.transport, destination.target.port, destination.application, kind)
    hearing = associations.of(way, decision.rule)
    return [entry.name for entry in hearing if entry.interest.events & _HEARD[destination.transport]]


def _way(configuration: Configuration, decision: Decision) -> Chosen | None:
    """By which upstreams it would go; None where there is no such question."""
    if not configuration.routes or not _goes_on(decision):
        return None
    inbound = decision.inputs.transport in INBOUND
    routes = configuration.routes
    return routes.choose_inbound(decision.inputs) if inbound else routes.choose(decision.inputs)


def _stopped(way: Chosen | None, transport: Transport) -> str | None:
    """Why the engine refuses what the rules allow: neither datagrams nor waiting goes through an upstream."""
    if way is None or transport == "tcp" or way.via[0] == DIRECT:
        return None
    return UpstreamNoBind.slug if transport in INBOUND else UpstreamNoUdp.slug


def _goes_on(decision: Decision) -> bool:
    """Allowed; or the firewall listens, and waits for a peer to judge."""
    return decision.allowed or (decision.needs == "address" and decision.inputs.transport in INBOUND)


def _as_json(
    configuration: Configuration, explained: list[Explained], filters: list[str], trouble: str | None
) -> dict[str, Any]:
    best = _best(explained)
    way = _way(configuration, best.decision)
    return {
        "action": best.decision.action,
        "reason": best.decision.reason,
        "rule": best.decision.rule,
        "line": best.decision.rule_line,
        "needs": best.decision.needs,
        "policy": best.decision.policy,
        "lookup": trouble,
        "filters": filters,
        "via": list(way.via) if way is not None else None,
        "route": way.route if way is not None else None,
        "stopped": _stopped(way, best.decision.inputs.transport),
        "judgements": [
            {
                "address": None
                if isinstance(one.decision.inputs.address, Unknown)
                else str(one.decision.inputs.address),
                "action": one.decision.action,
                "reason": one.decision.reason,
                "rule": one.decision.rule,
                "tried": [tried._asdict() for tried in one.tried],
            }
            for one in explained
        ],
    }


def _best(explained: list[Explained]) -> Explained:
    """The one that decides: the first allowed address, else the first."""
    return next((one for one in explained if one.decision.allowed), explained[0])


def _show(
    configuration: Configuration,
    destination: Destination,
    explained: list[Explained],
    filters: list[str],
    trouble: str | None,
    moment: datetime,
) -> None:
    inputs = explained[0].decision.inputs
    who = "somebody unidentified" if isinstance(inputs.user, Unknown) else f"user {inputs.user}"
    if inputs.process:
        who += f", launched as {printable(', '.join(sorted(inputs.process)))}"
    click.echo(f"{destination} from {inputs.client}, {who}, {moment:%a %Y-%m-%d %H:%M}")
    for one in explained:
        _show_one(configuration, one, several=len(explained) > 1)
    if trouble is not None:
        click.echo(f"\nthe name was looked up, which failed: {printable(trouble)}")
    if _goes_on(_best(explained).decision):
        click.echo(f"\nfilters that would join: {', '.join(filters) or 'none'}")
    if (way := _way(configuration, _best(explained).decision)) is not None:
        why = "no route matches" if way.route is None else f'route "{printable(way.route)}"'
        stopped = _stopped(way, inputs.transport)
        but = "" if stopped is None else f": refused, {stopped}; no upstream does this for us"
        click.echo(f"way: {', then '.join(way.via)} ({why}){but}")


def _show_one(configuration: Configuration, one: Explained, *, several: bool) -> None:
    decision = one.decision
    colours = {"allow": "green", "deny": "red", "needs": "yellow"}
    verdict = click.style(decision.action.upper(), fg=colours[decision.action], bold=True)
    address = "" if isinstance(decision.inputs.address, Unknown) else f" for {decision.inputs.address}"
    click.echo(f"\n{verdict}{address if several or decision.inputs.host else ''}  {decision.reason}")
    click.echo(f"  {_because(configuration, decision)}")
    if one.tried:
        click.echo("  rules tried:")
    width = max((len(printable(tried.rule)) for tried in one.tried), default=0)
    for tried in one.tried:
        told: str = tried.outcome
        if tried.field is not None:
            told += f" on {tried.field}: wants {printable(tried.wanted)}, got {printable(tried.got)}"
        click.echo(f"    line {tried.line:<4} {printable(tried.rule):<{width}}  {told}")


def _because(configuration: Configuration, decision: Decision) -> str:
    if decision.needs == "user":
        asked = "HTTP and SOCKS5 clients are asked"
        return f'rule "{printable(decision.rule or "")}" needs to know the user: {asked}'
    if decision.needs == "address" and decision.inputs.host is None:
        return f'rule "{printable(decision.rule or "")}": the firewall listens, and judges each peer that arrives'
    if decision.needs == "address":
        return f'rule "{printable(decision.rule or "")}" needs the address of the name'
    if decision.rule is None:
        return "no rule matches; what no rule allows is denied"
    if not decision.rule_line:
        return f"{decision.rule}: closed unless a rule's `to` names this address outright"
    return f'rule "{printable(decision.rule)}" ({configuration.path}:{decision.rule_line})'
