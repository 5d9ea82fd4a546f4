"""Reads the store while it is being written, from any process that may read its files.

Never makes a file and never holds one for longer than a page of records takes: the writer cannot end a file that
somebody has open, and a person may leave a pager standing all night. So every page opens the files again and goes on by
the number of the last record; files that were renamed or deleted meanwhile do no harm.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from doorward.policy.model import IPAddress, IPNetwork
from doorward.policy.names import matches
from doorward.record import files, schema
from doorward.record.files import Archive
from doorward.record.model import Record, StoreError, StoreMissing
from doorward.record.query import Query

PAGE_ROWS: Final = 1000
FOLLOW_INTERVAL_S: Final = 0.25
BUSY_TIMEOUT_S: Final = 2.0
ATTEMPTS_MAX: Final = 10
"""How often a page is read again because a file was ended meanwhile; once is rare."""
_ID_MAX: Final = 2**63 - 1


class _Page(NamedTuple):
    """Which rows are wanted: numbers above `after` and up to `until`, at most `rows_max`."""

    query: Query
    after: int
    until: int
    newest_first: bool
    rows_max: int


def read(
    path: Path, query: Query, *, limit: int | None = None, newest_first: bool = True
) -> Iterator[Record]:
    """The records that match, in the order in which they were written (a record is written when it is complete).

    `path` is the configured one; `limit` None is all of them. What is written while reading may be left out. Raises
    StoreMissing at once; StoreMissing, StoreUnknown and StoreError also from the iterator.
    """
    _require_store(path)
    return (record for _, record in _pages(path, query, 0, _ID_MAX, limit=limit, newest_first=newest_first))


def sleep(seconds: float) -> bool:
    """Waits; the answer tells `follow` to go on."""
    time.sleep(seconds)
    return True


def follow(
    path: Path, query: Query, *, backlog: int = 0, wait: Callable[[float], bool] = sleep
) -> Iterator[Record]:
    """The last `backlog` matching records, oldest first, then every new one as it comes.

    Looks four times a second; `wait` is called in between with the seconds, and ends the iterator by answering False.
    Goes on when files end, are deleted or are begun anew. Raises as `read`.
    """
    _require_store(path)
    return _follow(path, query, backlog, wait)


def _follow(path: Path, query: Query, backlog: int, wait: Callable[[float], bool]) -> Iterator[Record]:
    seen = _newest_id(path)
    last = list(_pages(path, query, 0, seen, limit=backlog, newest_first=True))
    yield from (record for _, record in reversed(last))
    while True:
        newest = _newest_id(path)
        if newest > seen:
            yield from (record for _, record in _pages(path, query, seen, newest, newest_first=False))
            seen = newest
        elif not wait(FOLLOW_INTERVAL_S):
            return


def _newest_id(path: Path) -> int:
    rows = _rows(path, _Page(Query(), 0, _ID_MAX, newest_first=True, rows_max=1))
    return rows[0][0] if rows else 0


def _pages(
    path: Path, query: Query, after: int, until: int, *, limit: int | None = None, newest_first: bool
) -> Iterator[tuple[int, Record]]:
    left = _ID_MAX if limit is None else limit
    while left > 0:
        count = min(left, PAGE_ROWS)
        rows = _rows(path, _Page(query, after, until, newest_first, count))
        yield from rows
        if len(rows) < count:
            return
        left -= count
        if newest_first:
            until = rows[-1][0] - 1
        else:
            after = rows[-1][0]


def _rows(path: Path, page: _Page) -> list[tuple[int, Record]]:
    """One page over all the files. Raises StoreMissing, StoreUnknown, StoreError."""
    for _ in range(ATTEMPTS_MAX):
        archives = _require_store(path)
        rows: list[tuple[int, Record]] = []
        for file in _candidates(path, archives, page):
            rows += _rows_of_file(file, page._replace(rows_max=page.rows_max - len(rows)))
            if len(rows) >= page.rows_max:
                break
        # If a file was ended meanwhile, what it held may have been passed over.
        if _archives(path) == archives:
            return rows
    raise StoreError(f"the log {path} changes faster than it can be read")


def _candidates(path: Path, archives: list[Archive], page: _Page) -> list[Path]:
    """The files that may hold rows of the page, in its order; their names tell which rows they hold."""
    found = []
    for position, archive in enumerate(archives):
        following = archives[position + 1].first_id if position + 1 < len(archives) else _ID_MAX
        if archive.first_id <= page.until and following > page.after + 1:
            found.append(archive.path)
    if page.query.since_us is not None:
        found = [file for file in found if _changed_us(file) >= page.query.since_us]
    found.append(path)
    return found[::-1] if page.newest_first else found


def _changed_us(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns // 1000
    except FileNotFoundError:
        return 0


def _archives(path: Path) -> list[Archive]:
    try:
        return files.archives(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read the log {path}: {error}") from error


def _require_store(path: Path) -> list[Archive]:
    archives = _archives(path)
    if not archives and not path.exists():
        raise StoreMissing(
            f"there is no log at {path}: nothing has been recorded yet, or [log] path is another"
        )
    return archives


def _rows_of_file(path: Path, page: _Page) -> list[tuple[int, Record]]:
    parameters = (page.after, page.until, *page.query.parameters, page.rows_max)
    try:
        with closing(_connect(path)) as connection:
            connection.execute("BEGIN")  # so that the file cannot get another format while it is read
            version = schema.version_of(connection, path)
            if version == 0:
                return []  # begun this very moment: still without its table
            rows = connection.execute(_statement(version, page), parameters)
            return [(row[0], schema.record_from(row[1:])) for row in rows]
    except sqlite3.Error as error:
        if not path.exists():
            return []  # ended or deleted between looking and opening
        raise StoreError(f"cannot read the log {path}: {error}") from error


def _statement(version: int, page: _Page) -> str:
    source, order = schema.source(version), "DESC" if page.newest_first else "ASC"
    return (
        f"SELECT id, {schema.COLUMN_LIST} FROM {source} "  # noqa: S608 - constants; what was typed is in the parameters
        f"WHERE id > ? AND id <= ? AND {page.query.sql} ORDER BY id {order} LIMIT ?"
    )


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raises sqlite3.Error, also when the file is gone.

    A file without a write-ahead log is not being written to, and is read without any lock; SQLite would otherwise make
    files beside one that was copied from elsewhere.
    """
    resting = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro{resting}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
    )
    connection.text_factory = _text
    connection.create_function("network_matches", 2, _network_matches, deterministic=True)
    connection.create_function("name_matches", 2, _name_matches, deterministic=True)
    return connection


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _network_matches(address: Any, network: str) -> bool:
    parsed = _address(address) if isinstance(address, str) else None
    return parsed is not None and parsed in _network(network)


def _name_matches(name: Any, pattern: str) -> bool:
    return isinstance(name, str) and matches(pattern, name)


@lru_cache(maxsize=4096)
def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _network(text: str) -> IPNetwork:
    return ip_network(text)
