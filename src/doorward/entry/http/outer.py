"""The server's side of forwarded requests: a wire, or the near end of a chain of data filters."""

from __future__ import annotations

from typing import NamedTuple

from doorward.api.errors import DoorwardError
from doorward.engine.chain import Leftover, Passing
from doorward.engine.connection import Connection, End
from doorward.engine.engine import Engine
from doorward.engine.joint import JointEnd, joint
from doorward.net.leg import Leg


class Outer(NamedTuple):
    """One outer connection as the forwarding of requests sees it."""

    engine: Engine
    connection: Connection
    socket: Leg | JointEnd

    @staticmethod
    def of(engine: Engine, connection: Connection) -> Outer:
        """If filters are attached, they run between us and the wire from now on."""
        assert connection.external is not None
        if not connection.attached:
            return Outer(engine, connection, connection.external)
        near, far = joint()
        engine.supervisor.spawn(engine.carry(connection, far), name="chain")
        return Outer(engine, connection, near)

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
