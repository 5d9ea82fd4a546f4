"""Where the firewall listens, where it keeps its log and its operator's socket, and its limits."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import msgspec

from doorward.config.document import WORKERS_MAX, Document
from doorward.config.lines import KeyPath
from doorward.config.model import Limits, ListenAddress, LogSettings
from doorward.config.problems import Report
from doorward.config.source import kind_of
from doorward.policy.model import PORT_MAX

SOCKET_PATH_BYTES_MAX: Final = 107
"""What fits into `sun_path` with its final zero (unix(7))."""
FILE_BYTES_MAX: Final = 256 * 2**20
SHOWN_CHARACTERS_MAX: Final = 100
SHOWN_BITS_MAX: Final = 64
FILES_AT_LEAST: Final = 4
"""A small log still consists of several files, so that making room does not throw away nearly everything."""

_ADDRESS: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*)):([0-9]{1,5})", re.ASCII)


def parse_listen(text: str) -> ListenAddress:
    """`127.0.0.1:1080` or `[::1]:1080`; port 0 lets the kernel choose. Raises ValueError with a sentence."""
    found = _ADDRESS.fullmatch(text)
    if not found:
        raise ValueError("an address to listen on is written 127.0.0.1:1080 or [::1]:1080")
    host = found[2] if found[1] is None else found[1]
    port = int(found[3])
    if port > PORT_MAX:
        raise ValueError(f"a port is a number from 0 to {PORT_MAX}")
    if host.lower() == "localhost":
        raise ValueError(f'names are not looked up here; write "127.0.0.1:{port}" or "[::1]:{port}"')
    if not host or host == "*":
        raise ValueError(f'say which address; every one is "0.0.0.0:{port}" and "[::]:{port}"')
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError("an address to listen on is written 127.0.0.1:1080 or [::1]:1080") from None
    if (address.version == 6) != (found[1] is not None):
        raise ValueError("an IPv6 address stands in brackets and an IPv4 address does not")
    if "%" in host:
        raise ValueError("an address with a zone (%) is not supported")
    return ListenAddress(str(address), port)


def read_listen(document: Document, report: Report) -> tuple[ListenAddress, ...]:
    """Where clients are waited for, each address once. Every mistake is reported."""
    found: dict[ListenAddress, None] = {}
    for index, entry in enumerate(document.listen.proxy):
        path = ("listen", "proxy", index)
        try:
            address = parse_listen(entry) if entry else None
        except ValueError as mistake:
            report.error(path, f'"{entry}": {mistake}')
            continue
        if address in found and address.port:
            report.error(path, f'"{entry}" is listed twice')
        elif address:
            found[address] = None
    return tuple(found)


def read_workers(document: Document, report: Report) -> int | None:
    """How many processes serve clients; None for one on each core. A mistake is reported."""
    wanted: object = document.listen.workers
    if wanted == "auto":
        return None
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 1 <= wanted <= WORKERS_MAX:
        return wanted
    report.error(
        ("listen", "workers"),
        f'expected a whole number from 1 to {WORKERS_MAX}, or "auto"; found {_shown(wanted)}',
    )
    return 1


def read_log(document: Document, directory: Path, report: Report) -> LogSettings:
    """The log store's settings, its path made absolute. Every mistake is reported."""
    table = document.log
    total = table.size_max_mb * 2**20
    return LogSettings(
        path=_path(table.path, ("log", "path"), directory, report),
        file_bytes_max=min(FILE_BYTES_MAX, total // FILES_AT_LEAST),
        total_bytes_max=total,
        keep_days=table.keep_days,
        on_failure=table.on_failure,
    )


def read_control_path(document: Document, directory: Path, report: Report) -> Path:
    """Where the control socket lies, made absolute; one that is too long for the kernel is reported."""
    where: KeyPath = ("control", "path")
    path = _path(document.control.path, where, directory, report)
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        report.error(
            where,
            f'"{path}" is longer than the {SOCKET_PATH_BYTES_MAX} bytes that the system allows for a socket',
        )
    return path


def read_limits(document: Document) -> Limits:
    """The limits, as the document's shape has checked them."""
    return Limits(**msgspec.structs.asdict(document.limits))


def _path(text: str, where: KeyPath, directory: Path, report: Report) -> Path:
    path = directory / text
    if "\0" in text:
        report.error(where, "a path cannot hold a zero byte")
    elif text and kind_of(path) == "directory":
        report.error(where, f'"{path}" is a directory; name a file in it')
    return path


def _shown(value: object) -> str:
    """A value that is not what it should be, as far as it can be shown in a line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and len(value) <= SHOWN_CHARACTERS_MAX:
        return f'"{value}"'
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= SHOWN_BITS_MAX):
        return str(value)
    return "something else"
