"""The judgement of a request head: what is asked of which host, or why that cannot be said for certain.

For a forward proxy only two kinds of target exist (RFC 9112 3.2): `host:port` of CONNECT and
`http://host/path`. The Host field must name the same host, or the one that is judged might not be the one that
answers (RFC 9112 3.2.2 lets a proxy ignore it).
"""

from __future__ import annotations

import re
from typing import Final, Literal, cast

from doorward.wire.http.authority import parse_authority, write_authority
from doorward.wire.http.errors import HttpError
from doorward.wire.http.framing import connection_options, declared_framing, list_tokens, stays_open
from doorward.wire.http.head import Head, parse_request_head
from doorward.wire.http.model import NO_BODY, Framing, Request, Version

METHOD_BYTES_MAX: Final = 32
HTTP_PORT: Final = 80

# Old Windows clients send it with CONNECT; it says nothing that is not so.
_EMPTY_BODY: Final = Framing("length", 0)

_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp]://([^/?#]*)([!-~]*)")
_VERSION: Final = re.compile(rb" HTTP/[0-9]\.[0-9]$")
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ ")


def read_request(block: bytes) -> Request:
    """Judge a whole head, its empty line included.

    Raises HttpError, with these reasons beside those of `head` and `framing`: `http_malformed`, `http_version`,
    `http_method_too_long`, `http_method_unknown`, `http_trace`, `http_origin_form`, `http_target`, `http_scheme`,
    `http_fragment`, `http_userinfo`, `http_host`, `http_port`, `http_host_missing`, `http_host_twice`,
    `http_host_mismatch`, `http_connect_body`, `http_expectation`, `http_two_credentials`.
    """
    head = parse_request_head(block)
    if head.complaint is not None or head.version not in ("1.0", "1.1"):
        raise _diagnosis(head)
    if head.first_line != b"%b %b HTTP/%b" % (head.method, head.target, head.version.encode()):
        raise HttpError(
            "http_malformed", "the request line is not method, target and version with one space between"
        )
    method = head.method.decode("ascii")
    if method == "TRACE":
        raise HttpError("http_trace", "TRACE would show the client what was sent for it", status=405)
    framing = declared_framing(head) or NO_BODY
    return _connect(head, framing) if method == "CONNECT" else _forward(head, method, framing)


def _connect(head: Head, framing: Framing) -> Request:
    authority = parse_authority(head.target)
    if authority.port is None:
        raise HttpError("http_port", "CONNECT needs a port")
    host, port = authority.host, authority.port
    if framing not in (NO_BODY, _EMPTY_BODY):
        raise HttpError("http_connect_body", "CONNECT has no body, so nothing may frame one")
    _check_host(head, host, port, default_port=port)  # many clients leave the port out here
    return Request(
        method="CONNECT",
        host=host,
        port=port,
        authority=write_authority(host, port, None),
        path=b"",
        version=cast(Version, head.version),
        headers=head.headers,
        framing=NO_BODY,
        options=connection_options(head),
        # What follows a refused CONNECT may be bytes of a tunnel that some third party chose (RFC 9931): close.
        keep_alive=False,
        expect_continue=False,
        upgrade=None,
        proxy_authorization=_proxy_authorization(head),
    )


def _forward(head: Head, method: str, framing: Framing) -> Request:
    host, port, path = _absolute_form(head.target, method)
    _check_host(head, host, port, default_port=HTTP_PORT)
    options = connection_options(head)
    return Request(
        method,
        host,
        port,
        write_authority(host, port, HTTP_PORT),
        path,
        cast(Version, head.version),
        head.headers,
        framing,
        options,
        stays_open(head, options),
        _expects_continue(head),
        _upgrade(head, method, framing, options),
        _proxy_authorization(head),
    )


def _absolute_form(target: bytes, method: str) -> tuple[str, int, bytes]:
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise _target_error(target)
    authority, path = match.groups()
    if b"#" in path:
        raise HttpError("http_fragment", "a fragment is never sent to a server")
    if not authority:
        raise HttpError("http_host", "the target names no host")
    host, port = parse_authority(authority)
    if not path:
        path = b"*" if method == "OPTIONS" else b"/"  # RFC 9112 3.2.4
    elif path[0] == 0x3F:  # a query without a path
        path = b"/" + path
    return host, port or HTTP_PORT, path


def _target_error(target: bytes) -> HttpError:
    if target.startswith(b"/"):
        return HttpError(
            "http_origin_form", "this is a proxy: the target must be http://host/path or CONNECT host:port"
        )
    if not target.isascii():
        return HttpError("http_target", "the target holds bytes outside ASCII")
    scheme, colon, _ = target.partition(b"://")
    if colon and scheme.isalnum() and scheme.lower() != b"http":
        return HttpError(
            "http_scheme", f"scheme {scheme[:20].decode()!r} is not proxied; use CONNECT for TLS"
        )
    return HttpError("http_target", "the target is neither http://host/path nor CONNECT host:port")


def _check_host(head: Head, host: str, port: int, default_port: int) -> None:
    values = head.fields.get(b"host")
    if not values:
        if head.version == "1.1":
            raise HttpError("http_host_missing", "HTTP/1.1 needs a Host field")
        return
    if len(values) > 1:
        raise HttpError("http_host_twice", "Host is given more than once")
    named = parse_authority(values[0])
    if named.host != host or (named.port or default_port) != port:
        raise HttpError("http_host_mismatch", f"the target names {host}:{port}, Host names {values[0]!r}")


def _expects_continue(head: Head) -> bool:
    values = head.fields.get(b"expect")
    if not values or head.version == "1.0":  # RFC 9110 10.1.1: ignored from HTTP/1.0
        return False
    if list_tokens(values) != [b"100-continue"]:
        raise HttpError("http_expectation", f"cannot meet Expect: {values[0][:100]!r}", status=417)
    return True


def _upgrade(
    head: Head, method: str, framing: Framing, options: frozenset[bytes]
) -> Literal["websocket"] | None:
    """Every other protocol is ignored, as a proxy may (RFC 9110 7.8); h2c is a known way around one."""
    if b"upgrade" not in options or method != "GET" or head.version != "1.1" or framing.length:
        return None
    if framing.kind == "chunked" or list_tokens(head.fields.get(b"upgrade", [])) != [b"websocket"]:
        return None
    return "websocket"


def _proxy_authorization(head: Head) -> bytes | None:
    values = head.fields.get(b"proxy-authorization")
    if not values:
        return None
    if len(values) > 1:
        raise HttpError("http_two_credentials", "Proxy-Authorization is given more than once")
    return values[0]


def _diagnosis(head: Head) -> HttpError:
    """Why llhttp refused it: the first of our own reasons that applies, else llhttp's words."""
    line = head.first_line
    method = _METHOD.match(line)
    if method is None:
        return HttpError("http_malformed", "the request line does not begin with a method")
    if len(method[0]) - 1 > METHOD_BYTES_MAX:
        return HttpError("http_method_too_long", f"the method is over {METHOD_BYTES_MAX} bytes", status=501)
    version = _VERSION.search(line)
    if line.count(b" ") == 1 or (version and version[0] not in (b" HTTP/1.0", b" HTTP/1.1")):
        return HttpError("http_version", "only HTTP/1.0 and HTTP/1.1 are spoken here", status=505)
    if line.count(b" ") != 2 or version is None:
        return HttpError(
            "http_malformed", "the request line is not method, target and version with one space between"
        )
    if not line.isascii():
        return HttpError("http_target", "the target holds bytes outside ASCII")
    target = line.split(b" ")[1]
    try:
        if method[0] == b"CONNECT ":
            parse_authority(target)
        else:
            _absolute_form(target, "")
        # llhttp stopped early, so the version is read from the line.
        declared_framing(head._replace(version=version[0][-3:].decode()))
    except HttpError as error:
        return error
    complaint = head.complaint or "refused"
    if "method" in complaint:
        name = method[0][:-1].decode("ascii")
        return HttpError("http_method_unknown", f"method {name!r} is not known here", status=501)
    return HttpError("http_malformed", f"llhttp: {complaint}")
