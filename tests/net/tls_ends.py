"""TLS over any two carriers that face each other, for tests."""

from __future__ import annotations

import asyncio
import ssl

from tests.net.certificates import SERVER_NAME, Authority

from doorward.api.errors import Side
from doorward.net.carrier import Carrier
from doorward.net.tls import accept_tls, connect_tls
from doorward.net.tls_context import client_context, server_context
from doorward.net.tls_leg import TLSLeg
from doorward.net.tls_records import Records

TIMEOUT_S = 5.0


class Contexts:
    """One context for each side."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.client = client_context(ca=authority.file)
        self.server = server_context(authority.identity("server"))
        self.client.minimum_version = self.client.maximum_version = version

    async def over(self, near: Carrier, far: Carrier) -> tuple[TLSLeg, TLSLeg]:
        """The client's end over `near`, the server's over `far`."""
        client, server = await asyncio.gather(
            connect_tls(near, self.client, SERVER_NAME, timeout_s=TIMEOUT_S),
            accept_tls(far, self.server, timeout_s=TIMEOUT_S),
        )
        return client, server


class Talk:
    """A client's and a server's records, and no wire between them."""

    def __init__(
        self, client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = SERVER_NAME
    ) -> None:
        self.client = Records(client, Side.EXTERNAL, server_side=False, server_name=name)
        self.server = Records(server, Side.INTERNAL, server_side=True, server_name=None)

    def shake(self) -> None:
        """To the end of the handshake. Raises what either side raises; its alert has then reached the other."""
        while not (self.client.ready and self.server.ready):
            for side in (self.client, self.server):
                try:
                    side.handshake()
                finally:
                    self.move()

    def move(self) -> None:
        """All that is outgoing arrives."""
        self.server.feed(self.client.take_outgoing())
        self.client.feed(self.server.take_outgoing())
