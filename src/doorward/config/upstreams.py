"""`[upstreams.NAME]`: other firewalls, each checked as far as it can be without speaking to it.

Passwords and certificates are read here, once: what is in force is what was checked. A secret is never quoted, and
is nowhere but in the `Upstream` that needs it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from msgspec import UNSET, UnsetType

from doorward.config.document import Document
from doorward.config.lines import KeyPath
from doorward.config.model import ListenAddress, Upstream, UpstreamTls
from doorward.config.problems import Report
from doorward.config.secrets import doubt_mode, existing_file, read_secret
from doorward.config.upstream_tables import UpstreamTable
from doorward.policy.address import BadHost, parse_host
from doorward.policy.model import IPAddress
from doorward.policy.routes import DIRECT
from doorward.wire.basic import basic
from doorward.wire.credentials import write_credentials
from doorward.wire.errors import ProtocolError

HOPS_MAX: Final = 8
"""Upstreams behind one another; each costs a round trip or two for every connection."""

_ADDRESS: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]/@]*):([0-9]{1,5})", re.ASCII)
_HOW_TO_WRITE: Final = 'an address is written "proxy.example:1080", "192.0.2.1:1080" or "[2001:db8::1]:1080"'


def read_upstreams(
    document: Document, directory: Path, listen: tuple[ListenAddress, ...], report: Report
) -> dict[str, Upstream]:
    """Every upstream by its name; where one has mistakes they are reported, and none must be used."""
    found = {
        name: _Reader(name, table, directory, report).read() for name, table in document.upstreams.items()
    }
    _check_through(found, report)
    for name, upstream in found.items():
        if name == DIRECT:
            report.error(("upstreams", name), '"direct" is the way without an upstream; choose another name')
        if upstream.through is None and any(_is_here(upstream, own) for own in listen):
            report.error(("upstreams", name, "address"), "this is where Doorward itself listens")
    return found


def hops(upstreams: Mapping[str, Upstream], name: str) -> tuple[Upstream, ...]:
    """The upstreams on the way to one and the one itself, the first to be dialled first. Expects no cycle."""
    upstream = upstreams[name]
    before = () if upstream.through is None else hops(upstreams, upstream.through)
    return (*before, upstream)


def _is_here(upstream: Upstream, own: ListenAddress) -> bool:
    """Whether that is where we listen ourselves, as far as it can be seen: each connection would cause another."""
    if upstream.port != own.port:
        return False
    is_loopback = upstream.host == "localhost" or (
        not isinstance(upstream.host, str) and upstream.host.is_loopback
    )
    mine = ip_address(own.host)
    return str(upstream.host) == own.host or (is_loopback and (mine.is_unspecified or mine.is_loopback))


def _check_through(upstreams: Mapping[str, Upstream], report: Report) -> None:
    for name, upstream in upstreams.items():
        path = ("upstreams", name, "through")
        if upstream.through is not None and upstream.through not in upstreams:
            report.unknown(path, "upstream", upstream.through, upstreams)
        seen = [name]
        before = upstream.through
        while before is not None and before in upstreams and before not in seen:
            seen.append(before)
            before = upstreams[before].through
        if before == name:
            circle = '" through "'.join([*seen, name])
            report.error(path, f'it goes round in a circle: "{circle}"')
        elif len(seen) > HOPS_MAX:
            report.error(path, f"{len(seen)} upstreams behind one another; at most {HOPS_MAX}")


class _Reader:
    """Reads one upstream."""

    def __init__(self, name: str, table: UpstreamTable, directory: Path, report: Report) -> None:
        self._name = name
        self._table = table
        self._directory = directory
        self._report = report
        self._path: KeyPath = ("upstreams", name)

    def read(self) -> Upstream:
        table = self._table
        host, port = self._address()
        user, password = self._login()
        return Upstream(
            name=self._name,
            kind=table.kind,
            host=host,
            port=port,
            line=self._report.line(self._path),
            tls=self._tls(host),
            user=user,
            password=password,
            through=_given(table.through),
            send=table.send,
        )

    def _address(self) -> tuple[str | IPAddress, int]:
        text, path = self._table.address, (*self._path, "address")
        if not text:
            return "", 0
        found = _ADDRESS.fullmatch(text)
        if found is None or not 1 <= int(found[2]) <= 65_535:
            hint = '; say what it speaks with "kind" and "tls"' if "://" in text else ""
            self._report.error(path, f'"{text}": {_HOW_TO_WRITE}, with a port from 1 to 65535{hint}')
            return "", 0
        try:
            return parse_host(found[1]), int(found[2])
        except BadHost as mistake:
            self._report.error(path, f'"{text}": {mistake.detail}')
            return "", 0

    def _login(self) -> tuple[str | None, str]:
        table, report, path = self._table, self._report, self._path
        user, password = _given(table.user), ""
        if table.password is not UNSET and table.password_file is not UNSET:
            report.error((*path, "password_file"), '"password" stands here as well; keep one of the two')
            return user, ""
        if table.password is not UNSET:
            password = table.password
            report.warning((*path, "password"), 'a secret in the policy file; "password_file" keeps it apart')
        elif table.password_file is not UNSET:
            password = read_secret(self._directory, table.password_file, (*path, "password_file"), report)
        elif user is not None:
            report.error((*path, "user"), '"password_file" is missing; expected the file with its password')
            return user, ""
        if user is None:
            if table.password is not UNSET or table.password_file is not UNSET:
                report.error(path, '"user" is missing; a password alone says nothing')
            return None, ""
        try:
            write_credentials(user, password)
            if table.kind == "http":
                basic(user, password)
        except ProtocolError as mistake:
            report.error((*path, "user"), f"cannot be sent to an upstream: {mistake.detail}")
        return user, password

    def _tls(self, host: str | IPAddress) -> UpstreamTls | None:
        table = self._table
        if not table.tls:
            for key in ("server_name", "ca_file", "certificate", "key"):
                if getattr(table, key) is not UNSET:
                    self._report.error((*self._path, key), 'of no use without "tls = true"')
            if not table.verify:
                self._report.error((*self._path, "verify"), 'of no use without "tls = true"')
            return None
        return UpstreamTls(self._server_name(host), self._context())

    def _server_name(self, host: str | IPAddress) -> str:
        name = _given(self._table.server_name)
        if name is None:
            return str(host)
        try:
            return str(parse_host(name))
        except BadHost as mistake:
            self._report.error((*self._path, "server_name"), f'"{name}": {mistake.detail}')
            return ""

    def _context(self) -> ssl.SSLContext:
        table = self._table
        context = _plain_context()
        if not table.verify:
            self._report.warning(
                (*self._path, "verify"), "anybody on the way can pass for this upstream and read its password"
            )
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif table.ca_file is UNSET:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if table.ca_file is not UNSET and (file := self._file("ca_file", table.ca_file)):
            self._load("ca_file", lambda: context.load_verify_locations(file))
        if table.certificate is not UNSET:
            self._load_own(context, table.certificate)
        elif table.key is not UNSET:
            self._report.error((*self._path, "key"), '"certificate" is missing; a key alone says nothing')
        return context

    def _load_own(self, context: ssl.SSLContext, certificate: str) -> None:
        """Our own certificate; its key may stand in the same file."""
        file = self._file("certificate", certificate)
        place, key = "certificate", file
        if self._table.key is not UNSET:
            place, key = "key", self._file("key", self._table.key)
        if file is None or key is None:
            return
        doubt_mode(key, (*self._path, place), self._report)
        # Without a password the library would ask for one on the terminal.
        self._load("certificate", lambda: context.load_cert_chain(file, key, password=""))

    def _file(self, key: str, name: str) -> Path | None:
        return existing_file(self._directory, name, (*self._path, key), self._report)

    def _load(self, key: str, load: Callable[[], None]) -> None:
        """OpenSSL's own words say nothing to an operator, save that it did not work."""
        try:
            load()
        except ssl.SSLError:
            what = "certificates" if key == "ca_file" else "a certificate and its unencrypted key"
            self._report.error((*self._path, key), f"the file does not hold {what} (PEM)")
        except (OSError, ValueError) as failure:
            self._report.error((*self._path, key), f"cannot be read: {failure}")


def _plain_context() -> ssl.SSLContext:
    """Checks name and certificate. What `net.tls_context` says of every context holds for this one, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.hostname_checks_common_name = False
    return context


def _given(value: str | UnsetType) -> str | None:
    return None if value is UNSET else value
