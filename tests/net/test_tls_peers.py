"""TLS with programs that are not ours: openssl, curl, and Python's own sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.net.carrier_world import exactly, outcome, start, to_the_end
from tests.net.certificates import SERVER_NAME, Authority
from tests.net.tls_ends import TIMEOUT_S

from doorward.api.errors import Side, TLSTruncated
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.tls import accept_tls, connect_tls
from doorward.net.tls_context import client_context, server_context
from doorward.net.tls_leg import TLSLeg

pytestmark = pytest.mark.anyio

VERSIONS = ["tls1_3", "tls1_2"]
MIB = 1024 * 1024


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program with its input and output in our hands, ended at the end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Listening:
    """A port that our legs come from."""

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    async def leg(self) -> Leg:
        """Whoever comes next."""
        async with asyncio.timeout(TIMEOUT_S):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.socket)
        return Leg(self.poller, sock, Side.INTERNAL)

    async def served(self, context: ssl.SSLContext) -> TLSLeg:
        """The same, past the handshake."""
        return await accept_tls(await self.leg(), context, timeout_s=TIMEOUT_S)


@pytest.fixture
async def listening(poller: Poller) -> AsyncIterator[Listening]:
    listening = Listening(poller)
    yield listening
    listening.socket.close()


async def read_until(stream: asyncio.StreamReader | None, mark: bytes) -> bytes:
    assert stream is not None
    async with asyncio.timeout(TIMEOUT_S):
        return await stream.readuntil(mark)


@needs("openssl")
@pytest.mark.parametrize("version", VERSIONS)
async def test_openssl_as_the_client(listening: Listening, authority: Authority, version: str) -> None:
    context = server_context(
        authority.identity("server"), alpn=["x"], ask_client="required", ca=authority.file
    )
    client = authority.identity("client")
    async with running(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{listening.port}", f"-{version}", "-quiet"),
        *("-servername", SERVER_NAME, "-CAfile", authority.file, "-verify_return_error", "-alpn", "x"),
        *("-cert", str(client.chain), "-key", str(client.key)),
    ) as process:
        leg = await listening.served(context)
        assert leg.version == version.replace("tls1_", "TLSv1.")
        assert (leg.alpn, leg.server_name, leg.peer_names) == ("x", SERVER_NAME, (("DNS", "client.test"),))
        assert process.stdin is not None
        process.stdin.write(b"hello\n")
        assert await exactly(leg, 6) == b"hello\n"
        await leg.send(b"good day\n")
        assert await read_until(process.stdout, b"\n") == b"good day\n"
        await leg.close()
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == 0


@needs("openssl")
async def test_openssl_asks_for_new_keys(listening: Listening, authority: Authority) -> None:
    async with running(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{listening.port}", "-tls1_3"),
        *("-servername", SERVER_NAME, "-CAfile", authority.file),
    ) as process:
        leg = await listening.served(server_context(authority.identity("server")))
        assert process.stdin is not None
        for _ in range(3):
            process.stdin.write(b"K\n")
            await read_until(process.stderr, b"KEYUPDATE\n")
            process.stdin.write(b"hello\n")
            reading = start(exactly(leg, 6))
            await leg.send(b"good day\n")
            assert await outcome(reading) == b"hello\n"
            await read_until(process.stdout, b"good day\n")
        leg.close_now()


@needs("openssl")
@pytest.mark.parametrize("version", VERSIONS)
async def test_openssl_as_the_server(poller: Poller, authority: Authority, version: str) -> None:
    server = authority.identity("server")
    async with running(
        *("openssl", "s_server", "-accept", "127.0.0.1:0", f"-{version}", "-naccept", "1"),
        *("-cert", str(server.chain), "-key", str(server.key), "-CAfile", authority.file, "-Verify", "1"),
        *("-verify_return_error", "-alpn", "x"),
    ) as process:
        await read_until(process.stdout, b"ACCEPT ")
        port = int((await read_until(process.stdout, b"\n")).rpartition(b":")[2])
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        context = client_context(ca=authority.file, identity=authority.identity("client"), alpn=["y", "x"])
        leg = await connect_tls(Leg(poller, sock, Side.EXTERNAL), context, SERVER_NAME, timeout_s=TIMEOUT_S)
        assert (leg.version, leg.alpn) == (version.replace("tls1_", "TLSv1."), "x")
        await leg.send(b"hello\n")
        await read_until(process.stdout, b"hello\n")
        assert process.stdin is not None
        process.stdin.write(b"good day\n")
        assert await exactly(leg, 9) == b"good day\n"
        await leg.shutdown()
        assert await to_the_end(leg) == b"", "it answers our end with its own"
        await leg.close()


@needs("curl")
@pytest.mark.parametrize("version", ["1.3", "1.2"])
@pytest.mark.parametrize("ending", ["in order", "broken off"])
async def test_curl(listening: Listening, authority: Authority, version: str, ending: str) -> None:
    """A body up to the end of the connection: curl believes it only if TLS has said that it is the end."""
    body = os.urandom(MIB)
    async with running(
        *("curl", "--silent", "--show-error", "--http1.1", "--cacert", authority.file, "--noproxy", "*"),
        *(f"--tlsv{version}", "--tls-max", version, "--resolve", f"{SERVER_NAME}:{listening.port}:127.0.0.1"),
        f"https://{SERVER_NAME}:{listening.port}/",
    ) as process:
        reading = start(process.communicate())
        leg = await listening.served(server_context(authority.identity("server"), alpn=["http/1.1"]))
        assert (leg.version, leg.alpn) == (f"TLSv{version}", "http/1.1")
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await leg.recv()
        await leg.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        await leg.send(body)
        if ending == "in order":
            await leg.shutdown()
            assert await to_the_end(leg) == b""
            await leg.close()
        else:
            leg.close_now(abortive=True)
        output, errors = await asyncio.wait_for(reading, TIMEOUT_S)
        if ending == "in order":
            assert (process.returncode, hashlib.sha256(output).digest()) == (0, hashlib.sha256(body).digest())
        else:
            assert process.returncode != 0, errors


async def test_python_as_the_client_without_and_with_its_own_end(
    listening: Listening, authority: Authority
) -> None:
    """Its `close` says no end of TLS; `unwrap` does."""
    context = server_context(authority.identity("server"))
    data = os.urandom(MIB)

    def client(*, in_order: bool) -> None:
        own = ssl.create_default_context(cafile=authority.file)
        with socket.create_connection(("127.0.0.1", listening.port), timeout=TIMEOUT_S) as sock:
            with own.wrap_socket(sock, server_hostname=SERVER_NAME) as tls:
                tls.sendall(data)
                if in_order:
                    tls.unwrap()

    for in_order in (True, False):
        thread = threading.Thread(target=client, kwargs={"in_order": in_order}, daemon=True)
        thread.start()
        leg = await listening.served(context)
        assert await exactly(leg, len(data)) == data
        if in_order:
            assert await to_the_end(leg) == b""
        else:
            with pytest.raises(TLSTruncated):
                await leg.recv()
        await leg.close()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


async def test_python_as_the_server(poller: Poller, authority: Authority) -> None:
    identity = authority.identity("server")
    data = os.urandom(MIB)

    def serve(listener: socket.socket) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(str(identity.chain), str(identity.key))
        sock, _ = listener.accept()
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.settimeout(TIMEOUT_S)
            got = b""
            while part := tls.recv(65_536):
                got += part
            tls.sendall(got)
            tls.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        sock = socket.create_connection(listener.getsockname())
        sock.setblocking(False)
        leg = await connect_tls(
            Leg(poller, sock, Side.EXTERNAL),
            client_context(ca=authority.file),
            SERVER_NAME,
            timeout_s=TIMEOUT_S,
        )
        await leg.send(data)
        await leg.shutdown()
        assert await to_the_end(leg) == data
        await leg.close()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
