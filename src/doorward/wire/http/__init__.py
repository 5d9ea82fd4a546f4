"""HTTP/1.1 for a forward proxy, without I/O: read strictly, judged whole, written anew.

A client's connection has one `RequestReader`; every request has one `ResponseReader` for the server's answer;
the functions of the writer make the bytes for the other side. Rules: RFC 9110 (semantics), RFC 9112 (syntax),
and our own refusals where those leave two readings. Which hosts may be asked is not known here.
"""

from doorward.wire.http.client import ConnectResponse, ConnectResponseReader, connect_request
from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import Data, End, Framing, Headers, Request, Response
from doorward.wire.http.reader import RequestReader
from doorward.wire.http.refusal import refusal
from doorward.wire.http.response_reader import ResponseReader
from doorward.wire.http.writer import (
    CONNECT_ESTABLISHED,
    CONTINUE,
    body,
    body_end,
    request_head,
    response_framing,
    response_head,
)

__all__ = [
    "CONNECT_ESTABLISHED",
    "CONTINUE",
    "ConnectResponse",
    "ConnectResponseReader",
    "Data",
    "End",
    "Framing",
    "Headers",
    "HttpError",
    "Request",
    "RequestReader",
    "Response",
    "ResponseReader",
    "body",
    "body_end",
    "connect_request",
    "refusal",
    "request_head",
    "response_framing",
    "response_head",
]
