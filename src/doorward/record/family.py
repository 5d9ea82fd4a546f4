"""A connection and what came of it: peers that arrived where it listened, connections that it promised, and theirs.

Numbers begin anew with each start of the firewall. What is meant is the newest connection on record with that number;
what began before it did belongs to another. A child never begins before its parent, but may be on record before it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from doorward.record import reader
from doorward.record.model import StoreError
from doorward.record.query import Condition, Query

FAMILY_MAX: Final = 10_000
"""Connections. Each is a parameter of one statement twice, and SQLite takes 32,766 (SQLITE_MAX_VARIABLE_NUMBER)."""

NOBODY: Final = 0
"""The number of whoever was turned away before there was a connection; such a record may have a parent all the same."""


def of_family(path: Path, number: int, query: Query) -> Query:
    """`query`, narrowed to the connection with this number and what came of it.

    Of the query's conditions those on time also say where to look for the family; the others choose among it. The store
    is searched once for each generation. Raises StoreError, also for too large a family; StoreMissing, StoreUnknown.
    """
    place = _since_its_beginning(path, number, Query(query.times, query.since_us))
    family = {number}
    parents = family
    while parents:
        parents = _children(path, parents, place) - family - {NOBODY}
        family |= parents
        if len(family) > FAMILY_MAX:
            raise StoreError(
                f"more than {FAMILY_MAX} connections came of connection {number}; "
                f"parent={number} shows the first generation"
            )
    # The second half is for whoever follows: children that are on record only later.
    members, children = _among("connection", family), _among("parent", family)
    either = Condition(f"({members.sql} OR {children.sql})", (*members.parameters, *children.parameters))
    return Query((*query.conditions, *place.conditions, either), place.since_us)


def _since_its_beginning(path: Path, number: int, place: Query) -> Query:
    """`place` from when the connection began; unchanged if it is not on record, and so may be alive."""
    itself = (Condition("connection = ?", (number,)), Condition("operation IS NOT 'destination'"))
    newest = next(reader.read(path, Query((*place.conditions, *itself), place.since_us), limit=1), None)
    if newest is None:
        return place
    return Query((*place.conditions, Condition("time_us >= ?", (newest.time_us,))), newest.time_us)


def _children(path: Path, parents: Collection[int], place: Query) -> set[int]:
    """The connections that came of any of these; a few more than FAMILY_MAX at most."""
    children: set[int] = set()
    for record in reader.read(path, Query((*place.conditions, _among("parent", parents)), place.since_us)):
        children.add(record.connection)
        if len(children) > FAMILY_MAX:
            break
    return children


def _among(column: str, numbers: Collection[int]) -> Condition:
    return Condition(f"{column} IN ({', '.join('?' * len(numbers))})", tuple(numbers))
