"""What SOCKS clients say, and what is no SOCKS."""

from __future__ import annotations

from typing import Final

from tests.entry.peers import Peer, socks5_request
from tests.entry.world import World

NO_LOGIN: Final = b"\x05\x01\x00"
LOGIN: Final = b"\x05\x01\x02"
EITHER: Final = b"\x05\x02\x00\x02"
# What is sent, what is answered, and the reason on record.
MALFORMED: Final = [
    (b"\x05\x00", b"\x05\xff", "no_methods"),
    (NO_LOGIN + b"\x04\x01\x00\x01", b"\x05\x00\x05\x01\x00\x01" + bytes(6), "socks_bad_version"),
    (NO_LOGIN + b"\x05\x09\x00\x01", b"\x05\x00\x05\x07\x00\x01" + bytes(6), "bad_command"),
    (NO_LOGIN + b"\x05\x01\x01\x01", b"\x05\x00\x05\x01\x00\x01" + bytes(6), "bad_reserved"),
    (NO_LOGIN + b"\x05\x01\x00\x09", b"\x05\x00\x05\x08\x00\x01" + bytes(6), "bad_address_type"),
    (NO_LOGIN + b"\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00\x05\x01\x00\x01" + bytes(6), "bad_name"),
    (
        NO_LOGIN + b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00",
        b"\x05\x00\x05\x01\x00\x01" + bytes(6),
        "bad_port",
    ),
    (LOGIN + b"\x05\x01\x00\x01", b"\x05\x02\x01\x01", "bad_credentials_form"),
    (b"\x04\x01\x00\x50\x7f\x00\x00\x01" + b"u" * 300, b"\x00\x5b" + bytes(6), "bad_user_id"),
    (b"\x04\x09\x00\x50\x7f\x00\x00\x01u\0", b"\x00\x5b" + bytes(6), "bad_command"),
]


async def reply5(client: Peer) -> int:
    """The code of the answer to a request; the address behind it is read and let go."""
    head = await client.receive(4)
    assert (head[0], head[2]) == (5, 0)
    await client.receive(18 if head[3] == 4 else 6)
    return head[1]


async def ask5(here: World, host: str, port: int) -> Peer:
    """A client without a login that has asked for this."""
    client = await here.client(NO_LOGIN)
    assert await client.receive(2) == b"\x05\x00"
    await client.send(socks5_request(host, port))
    return client


async def talk(client: Peer, outer: Peer) -> None:
    """The tunnel carries both ways, and each end hears of the other's end."""
    await client.send(b"to the server")
    assert await outer.receive(13) == b"to the server"
    await outer.send(b"to the client")
    assert await client.receive(13) == b"to the client"
    client.half_close()
    assert await outer.receive_rest() == b""
    await outer.send(b"the last")
    outer.close()
    assert await client.receive_rest() == b"the last"
