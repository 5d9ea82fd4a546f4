"""The server's side of forwarded requests: a wire, or the near end of a chain of data filters."""

from __future__ import annotations

from typing import NamedTuple

from doorward.api.errors import DoorwardError
from doorward.engine.chain import Leftover, Passing
from doorward.engine.connection import Connection
from doorward.engine.engine import Engine
from doorward.engine.outcome import End
from doorward.engine.outer_end import outer_end
from doorward.net.carrier import Carrier
from doorward.net.leg import Leg


class Outer(NamedTuple):
    """One outer connection as the forwarding of requests sees it."""

    engine: Engine
    connection: Connection
    socket: Carrier

    @staticmethod
    def of(engine: Engine, connection: Connection) -> Outer:
        """Filters that are attached run between us and the wire from now on; one that emulates is the wire."""
        return Outer(engine, connection, outer_end(engine, connection))

    async def switch(self, client: Leg, to_external: bytes, to_internal: bytes) -> None:
        """No more HTTP: carry bytes both ways until the end. Nothing is raised."""
        if isinstance(self.socket, Leg):
            client.put_back(to_external)
            self.socket.put_back(to_internal)
            await self.engine.carry(self.connection, client)
            return
        passing = Passing(client, self.socket, Leftover(to_external, to_internal))
        try:
            await passing.run()
        except BaseException:
            self.engine.kill(self.connection)
            raise
        if passing.failure is None:
            client.close_now()  # in order; the chain may still carry the last bytes, and ends the connection then
        else:
            self.fail(passing.failure)
            client.abort(passing.failure)

    def fail(self, error: DoorwardError) -> None:
        """End the outer connection because of an error."""
        self.engine.ended(self.connection, End(error.reason, error.side))
