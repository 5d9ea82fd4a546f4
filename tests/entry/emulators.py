"""Filter files whose filters are the server themselves, as text."""

from __future__ import annotations

from typing import Final

# Every connection is answered by this function, which each file defines.
_BEING: Final = """
from doorward.api import ApplicationFilter, DataFilter, SessionFilter

class Server(DataFilter):
    async def pump(self, internal, external, connection):
        assert external is None
        await serve(internal, connection)

class Emulate(ApplicationFilter):
    def session_filter(self, session):
        return EmulateSession()

class EmulateSession(SessionFilter):
    async def on_connect(self, event):
        event.connection.emulate_for_connect(Server())
        name(event.connection)

def name(connection):
    pass
"""
# Each line in capitals; says a name for itself.
LINES: Final = (
    _BEING
    + """
def name(connection):
    connection.set_socket_name(("192.0.2.99", 4711))

async def serve(internal, connection):
    while data := await internal.recv():
        connection.increment_bytes_sent(len(data))
        await internal.send(data.upper())
    await internal.send(b"bye")
"""
)
# The same without a name.
NAMELESS: Final = LINES.replace('connection.set_socket_name(("192.0.2.99", 4711))', "pass")
# An answer of 8 MiB to each request of a connection, with its length.
ANSWERS: Final = (
    _BEING
    + """
async def serve(internal, connection):
    held = b""
    while data := await internal.recv():
        held += data
        while b"\\r\\n\\r\\n" in held:
            _, held = held.split(b"\\r\\n\\r\\n", 1)
            await internal.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 8388608\\r\\n\\r\\n")
            for _ in range(128):
                await internal.send(b"x" * 65536)
"""
)
# One answer that ends with the connection, whatever the client still sends.
LAST_ANSWER: Final = (
    _BEING
    + """
async def serve(internal, connection):
    await internal.recv()
    await internal.send(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n")
    for _ in range(32):
        await internal.send(b"y" * 65536)
"""
)
# Listens, and then breaks.
BROKEN: Final = (
    _BEING
    + """
async def serve(internal, connection):
    await internal.recv()
    raise ZeroDivisionError("a mistake in the filter")
"""
)
# No name has an address.
NO_NAMES: Final = """
from doorward.api import ApplicationFilter, EventKind, Interest, SessionFilter

class NoNames(ApplicationFilter):
    interest = Interest.of(events=[EventKind.RESOLVE])
    def session_filter(self, session):
        return NoNamesSession()

class NoNamesSession(SessionFilter):
    async def on_resolve(self, event):
        event.deny("no_names_today")
"""
FILES: Final = {
    "lines.py": LINES,
    "nameless.py": NAMELESS,
    "answers.py": ANSWERS,
    "last.py": LAST_ANSWER,
    "broken.py": BROKEN,
    "nonames.py": NO_NAMES,
}
