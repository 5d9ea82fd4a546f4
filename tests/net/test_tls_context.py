"""What TLS is spoken with: what is refused before any connection, and which certificate is shown to whom."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from tests.net.certificates import OTHER_NAME, SERVER_NAME, Authority
from tests.net.tls_ends import Talk
from tests.net.wires import open_descriptors

from doorward.api.errors import BadArgument, Side, TLSFailed
from doorward.net.tls_context import Identity, client_context, server_context, words


def contents(identity: Identity) -> Identity:
    """The same certificate and key, in memory."""
    assert isinstance(identity.chain, str)
    assert isinstance(identity.key, str)
    return Identity(Path(identity.chain).read_bytes(), Path(identity.key).read_bytes())


@pytest.mark.parametrize("role", ["client", "server"])
def test_old_versions_compression_and_renegotiation_are_off(authority: Authority, role: str) -> None:
    server = authority.identity("server")
    context = client_context() if role == "client" else server_context(server)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF


def test_a_client_that_speaks_nothing_newer_than_tls_1_1_is_refused(authority: Authority) -> None:
    old = client_context(ca=authority.file)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(TLSFailed, match=r"unsupported protocol|no protocols available"):
        Talk(old, server_context(authority.identity("server"))).shake()


def test_the_system_is_trusted_unless_authorities_are_named(authority: Authority) -> None:
    ours = len(client_context(ca=authority.file).get_ca_certs())
    assert ours == 1
    assert client_context().verify_mode is ssl.CERT_REQUIRED
    system = len(client_context().get_ca_certs())
    assert len(client_context(ca=authority.file, system_trust=True).get_ca_certs()) == ours + system
    assert client_context(system_trust=False).get_ca_certs() == []


def test_a_certificate_in_memory_works_as_one_in_files_and_leaves_nothing_open(authority: Authority) -> None:
    before = open_descriptors()
    ca = Path(authority.file).read_bytes()
    server = contents(authority.identity("server"))
    assert isinstance(server.key, bytes)
    together = Identity(b"".join(part for part in server if isinstance(part, bytes)))
    for identity in (server, together):
        talk = Talk(client_context(ca=ca), server_context(identity))
        talk.shake()
        assert ("DNS", SERVER_NAME) in talk.client.peer_names
    assert open_descriptors() <= before


def test_what_cannot_be_used_is_said_in_words(authority: Authority, tmp_path: Path) -> None:
    server, other = authority.identity("server"), authority.identity("other")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    empty = tmp_path / "empty.pem"
    empty.touch()
    for identity, wrong in [
        (Identity("/nowhere.pem"), "certificate '/nowhere.pem': No such file or directory"),
        (Identity(server.chain, "/nowhere.key"), "with key '/nowhere.key': No such file"),
        (Identity(server.chain, other.key), "key values mismatch"),
        (Identity(str(garbage)), "certificate '.*garbage.pem'"),
        (Identity(str(empty)), "certificate '.*empty.pem'"),
        (Identity(b"nothing"), "certificate given as text"),
        (Identity(server.chain), "certificate '.*server.pem'"),
    ]:
        with pytest.raises(BadArgument, match=wrong):
            server_context(identity)
        with pytest.raises(BadArgument, match=wrong):
            client_context(identity=identity)
    for ca in ("/nowhere.pem", str(garbage), str(empty), b"", b"nothing", b"\xff"):
        with pytest.raises(BadArgument, match="authorities"):
            client_context(ca=ca)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_at_the_terminal(
    authority: Authority, tmp_path: Path
) -> None:
    server, locked = authority.identity("server"), tmp_path / "locked.key"
    subprocess.run(
        [
            *("openssl", "ec", "-in", str(server.key), "-aes128", "-passout", "pass:secret"),
            *("-out", str(locked)),
        ],
        check=True,
        capture_output=True,
        timeout=10,
    )
    with pytest.raises(BadArgument, match="the key is encrypted"):
        server_context(Identity(server.chain, str(locked)))


@pytest.mark.parametrize("alpn", ["", "x" * 256, "é"])
def test_an_application_protocol_that_cannot_be_is_refused(authority: Authority, alpn: str) -> None:
    with pytest.raises(BadArgument, match="ALPN"):
        client_context(alpn=["h2", alpn])
    with pytest.raises(BadArgument, match="ALPN"):
        server_context(authority.identity("server"), alpn=[alpn])


def test_who_asks_for_a_certificate_must_say_who_may_sign_it(authority: Authority) -> None:
    with pytest.raises(BadArgument, match="who may sign"):
        server_context(authority.identity("server"), ask_client="required")


def test_each_name_is_shown_its_own_certificate_and_an_unknown_one_is_refused(authority: Authority) -> None:
    by_name = {
        SERVER_NAME: server_context(authority.identity("server")),
        OTHER_NAME: server_context(authority.identity("other")),
    }
    context = server_context(
        authority.identity("server"), choose=lambda name: by_name.get(name) if name else by_name[SERVER_NAME]
    )
    for name in (SERVER_NAME, OTHER_NAME, OTHER_NAME.upper()):
        talk = Talk(client_context(ca=authority.file), context, name)
        talk.shake()
        assert talk.client.peer_names[0] == ("DNS", name.lower())
        assert talk.server.server_name == name.lower()
    talk = Talk(client_context(ca=authority.file), context, "nobody.test")
    with pytest.raises(TLSFailed, match=r"no certificate for 'nobody\.test'"):
        talk.shake()
    with pytest.raises(TLSFailed, match="the peer says: unrecognized name"):
        talk.client.handshake()


def test_a_client_that_names_nobody_is_shown_what_stands_for_no_name(authority: Authority) -> None:
    asked: list[str | None] = []
    other = server_context(authority.identity("other"))

    def choose(name: str | None) -> ssl.SSLContext:
        asked.append(name)
        return other

    context = server_context(authority.identity("server"), choose=choose)
    talk = Talk(client_context(verify=False), context, None)
    talk.shake()
    assert asked == [None]
    assert talk.server.server_name is None
    assert talk.client.peer_certificate == ssl.PEM_cert_to_DER_cert(
        Path(str(authority.identity("other").chain)).read_text()
    )


def test_a_choice_that_raises_costs_this_handshake_alone(authority: Authority) -> None:
    def choose(name: str | None) -> ssl.SSLContext:
        raise RuntimeError("no disk")

    talk = Talk(
        client_context(ca=authority.file), server_context(authority.identity("server"), choose=choose)
    )
    with pytest.raises(TLSFailed, match="no certificate could be chosen: RuntimeError: no disk") as caught:
        talk.shake()
    assert caught.value.side is Side.OURS
    with pytest.raises(TLSFailed, match="the peer says: internal error"):
        talk.client.handshake()


@pytest.mark.parametrize(
    "name",
    [
        b"serve\n.test",
        b"serv\xff\xfe.test",
        b"serv\x00r.test",
        b"server..tes",
        b"serv'r.test",
        b"server.tes\x1b",
        b" erver.test",
    ],
)
def test_a_name_that_is_none_is_refused_and_goes_no_further(authority: Authority, name: bytes) -> None:
    talk = Talk(client_context(ca=authority.file), server_context(authority.identity("server")))
    talk.client.handshake()
    hello = talk.client.take_outgoing()
    assert hello.count(SERVER_NAME.encode()) == 1
    talk.server.feed(hello.replace(SERVER_NAME.encode(), name))
    with pytest.raises(TLSFailed):
        talk.server.handshake()
    assert talk.server.server_name is None
    assert not talk.server.ready


def test_reasons_are_plain_words() -> None:
    assert words(FileNotFoundError(2, "No such file or directory")) == "No such file or directory"
    assert words(ValueError("so")) == "so"
    assert words(ssl.SSLError()) == "unknown"
