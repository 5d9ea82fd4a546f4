"""What service and helper say to each other: JSON behind a length of four bytes, with a limit for each side.

The helper believes nothing: a message that is not of this shape, or that names what the model does not have, ends the
connection. The service can say nothing but this; whatever it asks for stays in `table inet doorward`.
"""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address, ip_network
from typing import Final, TypeAlias

import msgspec

from doorward.packetfilter.intervals import LAST
from doorward.packetfilter.model import (
    CASES_MAX,
    INTERFACES_MAX,
    LEASE_S_MAX,
    NAME_CHARACTERS_MAX,
    NETWORKS_MAX,
    OUTCOMES_MAX,
    STEPS_MAX,
    Capture,
    Element,
    Step,
    Table,
)

REQUEST_BYTES_MAX: Final = 64 * 2**20
"""A table at its limits takes some 30 MiB."""
REPLY_BYTES_MAX: Final = 16 * 2**20
ELEMENTS_MAX: Final = 8_192
"""In one message, and open at a time for one connection."""
LENGTH: Final = struct.Struct(">I")
PORT_MAX: Final = 65_535
INTERFACE_CHARACTERS_MAX: Final = 15
_REVISION: Final = re.compile(r"[0-9A-Za-z]{1,64}")
_MARK_MAX: Final = 2**32 - 4
_INTERFACE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@")


class BadMessage(Exception):
    """The other side does not keep to the protocol. Nothing of the message has been carried out."""


class Message(msgspec.Struct, tag=True, array_like=True, forbid_unknown_fields=True, frozen=True):
    """`number` is the request's, and the answer's to it; 0 belongs to no request."""

    number: int


class Opening(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """One element, for so many seconds."""

    element: Element
    lease_s: float


class Load(Message, frozen=True):
    """This table in place of the one that is there, with these openings, and no others of this connection."""

    table: Table
    openings: tuple[Opening, ...] = ()


class Change(Message, frozen=True):
    """Openings, new or to be prolonged, and others that end."""

    opened: tuple[Opening, ...] = ()
    closed: tuple[Element, ...] = ()


class Count(Message, frozen=True):
    """What has been counted?"""


class Done(Message, frozen=True):
    """It is so."""


class Refused(Message, frozen=True):
    """It is not so; `elements` that could not be opened, where it was some of them only."""

    reason: str
    elements: tuple[Element, ...] = ()


class Counted(Message, frozen=True):
    """Packets that began a flow, by counter, since the table was loaded.

    Counters of outcomes are called `o` and the outcome's place in the table.
    """

    packets: dict[str, int]


class Flow(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """One flow that the kernel has settled: the table's revision, the place of its outcome, and the two ends."""

    revision: str
    outcome: int
    transport: str
    source: str
    source_port: int
    destination: str
    port: int


class Noticed(Message, frozen=True):
    """Flows, as they begin; nobody has asked."""

    flows: tuple[Flow, ...]


Request: TypeAlias = Load | Change | Count
Reply: TypeAlias = Done | Refused | Counted | Noticed

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def packed(message: Message) -> bytes:
    """A whole message, its length in front."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def read_request(body: bytes) -> Request:
    """A request that the kernel can be asked. Raises BadMessage."""
    try:
        request = _requests.decode(body)
        match request:
            case Load(table=table, openings=openings):
                check_table(table)
                _check_openings(openings)
            case Change(opened=opened, closed=closed):
                _check_openings(opened)
                _expect(len(closed) <= ELEMENTS_MAX, "too many elements")
                for element in closed:
                    check_element(element)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise BadMessage(str(error)) from None
    return request


def read_reply(body: bytes) -> Reply:
    """An answer. Raises BadMessage."""
    try:
        return _replies.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadMessage(str(error)) from None


def check_element(element: Element) -> None:
    """Raises ValueError for what is no opening."""
    first, last = ip_address(element.first), ip_address(element.last)
    _expect(first.version == last.version and int(first) <= int(last), "the range of peers is none")
    if element.address is not None:
        _expect(ip_address(element.address).version == first.version, "two IP versions in one element")
    _expect("%" not in element.first + element.last + (element.address or ""), "an address with a zone")
    _expect(0 < element.port <= PORT_MAX, "no port")


def check_table(table: Table) -> None:
    """Raises ValueError for a table that nft could not have, or that would be too large."""
    _check_capture(table.capture)
    _expect(_REVISION.fullmatch(table.revision) is not None, "no revision")
    _expect(
        len(table.steps) <= STEPS_MAX and len(table.outcomes) <= OUTCOMES_MAX, "too many steps or outcomes"
    )
    _expect(sum(len(step.cases) for step in table.steps) <= CASES_MAX, "too many cases")
    for outcome in table.outcomes:
        _expect(
            len(outcome.rule or "") + len(outcome.reason) <= NAME_CHARACTERS_MAX * 2, "a name is too long"
        )
    for place, step in enumerate(table.steps):
        _check_step(table, place, step)
    for entrance in table.entrances:
        _check_target(table, entrance.target, len(table.steps))
    found = {(e.version, e.transport, e.own) for e in table.entrances}
    _expect(len(found) == len(table.entrances) == 8, "eight entrances make a table")


def _check_step(table: Table, place: int, step: Step) -> None:
    last = PORT_MAX if step.field == "port" else LAST[step.version]
    before = -1
    for case in step.cases:
        _expect(before < case.first <= case.last <= last, "cases that are out of order")
        before = case.last
        _check_target(table, case.target, place)
    _check_target(table, step.otherwise, place)


def _check_target(table: Table, target: int, steps: int) -> None:
    """Only to steps that stand before: there are no loops."""
    _expect(
        target < len(table.outcomes) if target >= 0 else -1 - target < steps, "a target that is not there"
    )


def _check_capture(capture: Capture) -> None:
    _expect(0 < len(capture.networks) <= NETWORKS_MAX, "no networks, or too many")
    _expect(len(capture.keep_source) <= NETWORKS_MAX, "too many networks")
    for text in (*capture.networks, *capture.keep_source):
        ip_network(text)
    _expect(len(capture.interfaces) <= INTERFACES_MAX, "too many interfaces")
    for name in capture.interfaces:
        _expect(
            0 < len(name) <= INTERFACE_CHARACTERS_MAX and set(name) <= _INTERFACE, "no name of an interface"
        )
    for port in (capture.tcp_port, capture.udp_port):
        _expect(0 < port <= PORT_MAX, "no port to come up to")
    _expect(0 < capture.mark <= _MARK_MAX, "no mark")
    _expect(capture.log_group is None or 0 <= capture.log_group <= PORT_MAX, "no group")


def _check_openings(openings: tuple[Opening, ...]) -> None:
    _expect(len(openings) <= ELEMENTS_MAX, "too many elements")
    for opening in openings:
        check_element(opening.element)
        _expect(0 < opening.lease_s <= LEASE_S_MAX, "no lease")


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)
