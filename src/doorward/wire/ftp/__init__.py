"""FTP's control connection as a codec without I/O, both directions.

    lines       what a line is: where it ends, what may not stand in it
    commands    client to server: Command, CommandReader
    replies     server to client: Reply, ReplyReader, several lines as one
    endpoints   the address and port in PORT, EPRT, 227 and 229

Rules: RFC 959; RFC 1123 section 4.1 for what it left open; RFC 2428 for EPRT and EPSV; RFC 2228 and RFC 4217 for
AUTH. Departures are refusals, or mend what two programs could read differently; each stands where it is made.
"""

from doorward.wire.ftp.commands import Command, CommandReader
from doorward.wire.ftp.endpoints import (
    Endpoint,
    eprt_command,
    extended_passive_reply,
    passive_reply,
    port_command,
    read_eprt,
    read_extended_passive,
    read_passive,
    read_port,
)
from doorward.wire.ftp.replies import Reply, ReplyReader

__all__ = [
    "Command",
    "CommandReader",
    "Endpoint",
    "Reply",
    "ReplyReader",
    "eprt_command",
    "extended_passive_reply",
    "passive_reply",
    "port_command",
    "read_eprt",
    "read_extended_passive",
    "read_passive",
    "read_port",
]
