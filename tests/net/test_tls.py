"""The doors to TLS: who is let in, what is said when nobody is, and what is left of the leg then."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.net.carrier_world import failure, outcome, start
from tests.net.certificates import OTHER_NAME, SERVER_NAME, Authority
from tests.net.certificates import authority as new_authority
from tests.net.tls_ends import TIMEOUT_S
from tests.net.wires import Peer, connected, turns, until

from doorward.api.errors import (
    BadArgument,
    DoorwardError,
    HandshakeTimedOut,
    PeerReset,
    Side,
    TimedOut,
    TLSFailed,
    TLSUntrusted,
)
from doorward.net import tls_leg
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.tls import accept_tls, connect_tls
from doorward.net.tls_context import AskClient, client_context, server_context
from doorward.net.tls_leg import HANDSHAKE_BYTES_MAX, TLSLeg

pytestmark = pytest.mark.anyio


class Legs(NamedTuple):
    """Two wires that face each other."""

    near: Leg
    far: Leg


@pytest.fixture
async def legs(poller: Poller) -> AsyncIterator[Legs]:
    one, other = connected()
    legs = Legs(Leg(poller, one, Side.EXTERNAL), Leg(poller, other, Side.INTERNAL))
    yield legs
    for leg in legs:
        leg.close_now()


@pytest.fixture
async def raw(poller: Poller) -> AsyncIterator[tuple[Leg, Peer]]:
    """A wire, and a peer that speaks no TLS."""
    one, other = connected()
    leg, peer = Leg(poller, one, Side.INTERNAL), Peer(other)
    yield leg, peer
    leg.close_now()
    other.close()


async def shake(
    legs: Legs, client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = SERVER_NAME
) -> tuple[TLSLeg | DoorwardError, TLSLeg | DoorwardError]:
    """Both ends, or why not."""
    one, other = await asyncio.gather(
        connect_tls(legs.near, client, name, timeout_s=TIMEOUT_S),
        accept_tls(legs.far, server, timeout_s=TIMEOUT_S),
        return_exceptions=True,
    )
    for result in (one, other):
        assert isinstance(result, TLSLeg | DoorwardError), result
    return one, other  # type: ignore[return-value]  # as was asserted


async def test_both_ends_know_each_other_afterwards(legs: Legs, authority: Authority) -> None:
    client = client_context(ca=authority.file, identity=authority.identity("client"), alpn=["h2", "http/1.1"])
    server = server_context(
        authority.identity("server"), ask_client="required", ca=authority.file, alpn=["http/1.1"]
    )
    near, far = await shake(legs, client, server)
    assert isinstance(near, TLSLeg)
    assert isinstance(far, TLSLeg)
    for leg in (near, far):
        assert (leg.version, leg.alpn, leg.server_name) == ("TLSv1.3", "http/1.1", SERVER_NAME)
        assert leg.cipher.startswith("TLS_")
        assert leg.peer_certificate is not None
    assert ("DNS", SERVER_NAME) in near.peer_names
    assert far.peer_names == (("DNS", "client.test"),)
    near.close_now()
    far.close_now()


async def test_an_address_may_be_the_name(legs: Legs, authority: Authority) -> None:
    near, far = await shake(
        legs,
        client_context(ca=authority.file),
        server_context(authority.identity("server")),
        "127.0.0.1",
    )
    assert isinstance(near, TLSLeg)
    assert isinstance(far, TLSLeg)
    assert far.server_name is None, "addresses are never sent as names (RFC 6066, section 3)"
    near.close_now()
    far.close_now()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (OTHER_NAME, "for 'other.test' .* Hostname mismatch"),
        ("127.0.0.2", "for '127.0.0.2' .* IP address mismatch"),
    ],
)
async def test_a_certificate_for_somebody_else_is_refused_and_the_server_hears_of_it(
    legs: Legs, authority: Authority, name: str, wrong: str
) -> None:
    client, server = client_context(ca=authority.file), server_context(authority.identity("server"))
    near, far = await shake(legs, client, server, name)
    assert isinstance(near, TLSUntrusted)
    with pytest.raises(TLSUntrusted, match=wrong):
        raise near
    assert near.side is Side.EXTERNAL
    assert isinstance(far, TLSFailed)
    assert far.detail.startswith("the peer says: ")
    assert not legs.near.open
    assert not legs.far.open


async def test_a_certificate_of_an_unknown_authority_is_refused_unless_that_is_waived(
    poller: Poller, authority: Authority, tmp_path: Path
) -> None:
    other = new_authority(tmp_path, "Somebody else")
    server = server_context(authority.identity("server"))
    for client, accepted in [
        (client_context(ca=other.file), False),
        (client_context(), False),
        (client_context(verify=False), True),
    ]:
        one, two = connected()
        legs = Legs(Leg(poller, one, Side.EXTERNAL), Leg(poller, two, Side.INTERNAL))
        near, far = await shake(legs, client, server)
        if accepted:
            assert isinstance(near, TLSLeg)
            assert near.peer_names == (), "nobody has verified them"
        else:
            assert isinstance(near, TLSUntrusted)
            assert "unable to get local issuer certificate" in near.detail
        for leg in (*legs, near, far):
            if isinstance(leg, TLSLeg | Leg):
                leg.close_now()


async def test_a_name_in_the_subject_is_none(legs: Legs, authority: Authority) -> None:
    server = authority.mint(SERVER_NAME, "email:somebody@server.test")
    near, _ = await shake(legs, client_context(ca=authority.file), server_context(server))
    assert isinstance(near, TLSUntrusted)


async def test_an_expired_certificate_is_refused(legs: Legs, authority: Authority) -> None:
    expired = authority.mint_expired("expired", f"DNS:{SERVER_NAME}")
    near, _ = await shake(legs, client_context(ca=authority.file), server_context(expired))
    assert isinstance(near, TLSUntrusted)
    assert "certificate has expired" in near.detail


@pytest.mark.parametrize(
    ("ask", "shown", "accepted"),
    [
        ("no", None, True),
        ("optional", None, True),
        ("optional", "client", True),
        ("optional", "stranger", False),
        ("required", None, False),
        ("required", "client", True),
        ("required", "stranger", False),
    ],
)
async def test_who_must_show_a_certificate_is_let_in_with_a_good_one_only(
    legs: Legs, authority: Authority, tmp_path: Path, ask: AskClient, shown: str | None, accepted: bool
) -> None:
    new_authority(tmp_path, "Somebody else").mint("stranger", "DNS:client.test")
    identity = {
        None: None,
        "client": authority.identity("client"),
        "stranger": Authority(tmp_path).identity("stranger"),
    }[shown]
    client = client_context(ca=authority.file, identity=identity)
    server = server_context(authority.identity("server"), ask_client=ask, ca=authority.file)
    near, far = await shake(legs, client, server)
    assert isinstance(near, TLSLeg), "with TLS 1.3 a client cannot know yet"
    if accepted:
        assert isinstance(far, TLSLeg)
        assert far.peer_names == ((("DNS", "client.test"),) if shown else ())
        far.close_now()
    else:
        assert isinstance(far, TLSUntrusted if shown else TLSFailed), far
        assert far.detail == (
            "the certificate of the client was not accepted: unable to get local issuer certificate"
            if shown
            else "peer did not return a certificate"
        )
        refused = await failure(near.recv())
        assert isinstance(refused, TLSFailed)
        assert refused.detail in {"the peer says: unknown ca", "the peer says: certificate required"}
    near.close_now()


async def test_an_application_protocol_that_only_one_side_speaks_is_none(
    legs: Legs, authority: Authority
) -> None:
    client = client_context(ca=authority.file, alpn=["h2"])
    near, far = await shake(legs, client, server_context(authority.identity("server"), alpn=["http/1.1"]))
    assert isinstance(near, TLSLeg)
    assert isinstance(far, TLSLeg)
    assert (near.alpn, far.alpn) == (None, None)
    near.close_now()
    far.close_now()


async def test_a_name_that_cannot_be_asked_for_closes_the_wire(
    raw: tuple[Leg, Peer], authority: Authority
) -> None:
    leg, peer = raw
    error = await failure(connect_tls(leg, client_context(ca=authority.file), "", timeout_s=TIMEOUT_S))
    assert isinstance(error, BadArgument)
    assert await peer.read_to_end() == b""


async def test_a_client_that_says_nothing_is_given_so_long_and_no_longer(
    raw: tuple[Leg, Peer], authority: Authority
) -> None:
    leg, peer = raw
    error = await failure(accept_tls(leg, server_context(authority.identity("server")), timeout_s=0.02))
    assert isinstance(error, HandshakeTimedOut)
    assert (error.side, error.detail) == (Side.INTERNAL, "no TLS handshake within 0.02 s")
    await peer.sees_reset()


async def test_a_server_that_stops_in_the_middle_is_given_so_long_and_no_longer(
    raw: tuple[Leg, Peer], authority: Authority
) -> None:
    leg, peer = raw
    shaking = start(connect_tls(leg, client_context(ca=authority.file), SERVER_NAME, timeout_s=0.05))
    assert (await peer.read(5))[:2] == b"\x16\x03"
    peer.push(b"\x16\x03\x03\x00\x7a\x02")
    error = await failure(outcome(shaking))
    assert isinstance(error, TimedOut)
    assert not isinstance(error, HandshakeTimedOut)
    assert error.side is Side.EXTERNAL
    await peer.sees_reset()


async def test_a_peer_that_takes_nothing_is_given_no_longer_either(
    poller: Poller, authority: Authority
) -> None:
    one, other = connected(4096)
    leg, peer = Leg(poller, one, Side.INTERNAL), Peer(other)
    try:
        while True:
            await asyncio.wait_for(leg.send_some(bytes(4096)), 0.02)
    except TimeoutError:
        pass
    error = await failure(connect_tls(leg, client_context(ca=authority.file), SERVER_NAME, timeout_s=0.02))
    assert isinstance(error, TimedOut)
    await peer.sees_reset()
    peer.socket.close()


async def test_a_cancelled_handshake_leaves_no_wire_behind(
    raw: tuple[Leg, Peer], authority: Authority
) -> None:
    leg, peer = raw
    shaking = start(accept_tls(leg, server_context(authority.identity("server")), timeout_s=TIMEOUT_S))
    await turns(5)
    shaking.cancel()
    await asyncio.wait([shaking])
    assert shaking.cancelled()
    assert not leg.open
    await peer.sees_reset()


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_peer_that_leaves_in_the_middle_is_told_apart_from_one_that_breaks_off(
    raw: tuple[Leg, Peer], authority: Authority, how: str
) -> None:
    leg, peer = raw
    shaking = start(accept_tls(leg, server_context(authority.identity("server")), timeout_s=TIMEOUT_S))
    await peer.send(b"\x16\x03\x01\x02\x00\x01")
    await turns(5)
    if how == "fin":
        peer.finish()
    else:
        peer.reset()
    error = await failure(outcome(shaking))
    if how == "fin":
        assert (type(error), error.detail) == (
            TLSFailed,
            "the peer ended the connection during the handshake",
        )
    else:
        assert isinstance(error, PeerReset)
    assert not leg.open


async def test_who_speaks_something_else_meets_an_end(raw: tuple[Leg, Peer], authority: Authority) -> None:
    leg, peer = raw
    await peer.send(b"GET / HTTP/1.1\r\n\r\n")
    error = await failure(accept_tls(leg, server_context(authority.identity("server")), timeout_s=TIMEOUT_S))
    assert (type(error), error.detail, error.side) == (TLSFailed, "http request", Side.INTERNAL)
    assert await peer.read_to_end() == b"", "OpenSSL says nothing to who cannot understand it"


async def test_a_hello_in_single_bytes_is_a_hello(raw: tuple[Leg, Peer], authority: Authority) -> None:
    leg, peer = raw
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(ca=authority.file).wrap_bio(incoming, outgoing, server_hostname=SERVER_NAME)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    shaking = start(accept_tls(leg, server_context(authority.identity("server")), timeout_s=TIMEOUT_S))
    for byte in outgoing.read():
        await peer.send(bytes([byte]))
        await turns(2)

    def is_done() -> bool:
        incoming.write(peer.pull() or b"")
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    await until(is_done, "the handshake")
    await peer.send(outgoing.read())
    served = await shaking
    assert served.version == "TLSv1.3"
    served.close_now()


async def test_a_hello_larger_than_any_is_ended_before_it_is_there(
    raw: tuple[Leg, Peer], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_leg, "HANDSHAKE_BYTES_MAX", 1000)
    leg, peer = raw
    shaking = start(accept_tls(leg, server_context(authority.identity("server")), timeout_s=TIMEOUT_S))
    await peer.send(b"\x16\x03\x01\x40\x00\x01\x00\xf0\x00" + bytes(500))
    await turns(5)
    assert not shaking.done()
    await peer.send(bytes(500))
    error = await failure(outcome(shaking))
    assert (type(error), error.detail) == (TLSFailed, "over 1000 bytes without data")
    assert not leg.open


async def test_a_handshake_without_end_is_ended(raw: tuple[Leg, Peer], authority: Authority) -> None:
    """A first message that says it is 16 MiB long would be refused at once; one within bounds must be sent."""
    leg, peer = raw
    shaking = start(connect_tls(leg, client_context(ca=authority.file), SERVER_NAME, timeout_s=TIMEOUT_S))
    await peer.read(5)
    sent = 0

    def is_stopped() -> bool:
        nonlocal sent
        if not leg.open:
            return True
        sent += peer.push(b"\x16\x03\x03\x00\x00" * 1000)
        return False

    await until(is_stopped, "the end")
    error = await failure(outcome(shaking))
    assert isinstance(error, TLSFailed)
    assert leg.received <= HANDSHAKE_BYTES_MAX + 64 * 1024
