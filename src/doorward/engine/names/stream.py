"""DNS over TCP: one stream of queries, answered one after the other (RFC 7766).

What is not answered yet is not read on, so a client that asks faster than it reads waits. It has a few seconds for
each message, from the first to the last byte, and the same to take the answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from doorward.api.errors import LinkError, Terminating
from doorward.engine.names.message import QUERY_BYTES_MAX
from doorward.wire.dns_stream import MessageReader, framed
from doorward.wire.errors import ProtocolError

if TYPE_CHECKING:
    from doorward.engine.names.answering import NameServer
    from doorward.engine.origin import Origin
    from doorward.engine.session import Session
    from doorward.net.carrier import Carrier

# RFC 7766 section 6.2.3 asks for seconds; clients that keep a stream open open another one without a word.
MESSAGE_TIMEOUT_S: Final = 10.0
READ_BYTES: Final = 4096


async def serve_stream(server: NameServer, session: Session, origin: Origin, carrier: Carrier) -> None:
    """Until the client ends it, is silent, or lies about a length. The carrier is closed then, also when cancelled."""
    reader = MessageReader(QUERY_BYTES_MAX)
    abortive = True
    try:
        while not session.ended:
            async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                messages = await _next_messages(carrier, reader)
            if messages is None:
                abortive = False
                return
            for message in messages:
                reply = await server.answer(session, origin, message, "tcp")
                if not reply:
                    return  # no client sends this
                async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                    await carrier.send(framed(reply))
    except ProtocolError as error:
        server.put_on_record(session, origin, "tcp", None, error.reason, detail=error.detail)
    except (TimeoutError, LinkError, Terminating):
        return  # it went away, or is as good as gone
    finally:
        carrier.close_now(abortive=abortive)


async def _next_messages(carrier: Carrier, reader: MessageReader) -> list[bytes] | None:
    """At least one, or None at the stream's end. Raises ProtocolError, LinkError kinds."""
    while True:
        data = await carrier.recv(READ_BYTES)
        if not data:
            reader.end()
            return None
        messages = reader.feed(data)
        if messages:
            return messages
