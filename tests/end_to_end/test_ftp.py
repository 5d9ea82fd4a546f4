"""FTP through the firewall with real clients and a real server: the rules allow port 21's stand-in and nothing else."""

from __future__ import annotations

import ftplib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall, starting_firewalls
from tests.end_to_end.dialling import Refused, socks5
from tests.end_to_end.ftp import (
    CONTENT,
    POLICY,
    FtpServer,
    Program,
    Site,
    curl,
    downloaded,
    ftp_server,
    lftp,
    site_of,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpServer]:
    with ftp_server(tmp_path_factory.mktemp("ftp")) as server:
        yield server


@pytest.fixture(scope="module")
def site(server: FtpServer) -> Iterator[Site]:
    with starting_firewalls() as start:
        yield site_of(start, server)


@pytest.mark.parametrize("host", ["127.0.0.1", "app.localhost"])
@pytest.mark.parametrize("way", ["socks5", "connect"])
def test_passive_transfers_by_pasv_and_epsv(site: Site, way: str, host: str) -> None:
    with site.client(way, host) as client:
        assert downloaded(client) == CONTENT
        client.storbinary("STOR uploaded", io.BytesIO(CONTENT))
        assert (site.server.home / "uploaded").read_bytes() == CONTENT
        assert "uploaded" in client.nlst()
        assert {name for name, _ in client.mlsd()} >= {"file", "uploaded"}
        client.af = 0  # anything but IPv4: ftplib then asks with EPSV
        assert downloaded(client) == CONTENT
        assert downloaded(client, rest=1_000_000) == CONTENT[1_000_000:]
        client.delete("uploaded")
    site.expect_nothing_left()


def test_without_the_filter_there_is_no_data_connection(
    start_firewall: StartFirewall, server: FtpServer
) -> None:
    policy = POLICY.format(port=server.port, settings="", limits="")
    site = Site(start_firewall(policy + "filters.ftp = false\n"), server)
    with site.client() as client, pytest.raises(Refused):
        client.nlst()


def test_a_hole_is_for_one_use_for_this_client_and_for_this_port(site: Site) -> None:
    with site.client() as client:
        host, port = client.makepasv()
        with pytest.raises(Refused):
            socks5(site.firewall.port, port + 1, host)
        socks5(site.firewall.port, port, host).close()
        with pytest.raises(Refused):
            socks5(site.firewall.port, port, host)
        host, port = client.makepasv()
        client.makepasv()
        with pytest.raises(Refused):
            socks5(site.firewall.port, port, host)
        host, port = client.makepasv()
    site.expect_nothing_left()
    with pytest.raises(Refused):
        socks5(site.firewall.port, port, host)


def test_an_abort_in_the_middle_and_the_session_goes_on(site: Site) -> None:
    with site.client() as client:
        client.voidcmd("TYPE I")
        data, _ = client.ntransfercmd("RETR file")
        assert data.recv(1000)
        client.abort()
        data.close()
        client.voidresp()
        assert downloaded(client) == CONTENT


def test_two_hundred_transfers_in_one_session(site: Site) -> None:
    (site.server.home / "small").write_bytes(b"small")
    with site.client() as client:
        for _ in range(200):
            assert downloaded(client, "small") == b"small"
    site.expect_nothing_left()


CURL_WAYS = {
    "socks5h": ["--proxy", "socks5h://{proxy}"],
    "socks5": ["--proxy", "socks5://{proxy}"],
    "socks4a": ["--proxy", "socks4a://{proxy}"],
    "connect": ["--proxy", "http://{proxy}", "--proxytunnel"],
}


@pytest.mark.parametrize("epsv", [[], ["--disable-epsv"]], ids=["epsv", "pasv"])
@pytest.mark.parametrize("way", CURL_WAYS)
def test_curl_passive(site: Site, program: Program, tmp_path: Path, way: str, epsv: list[str]) -> None:
    url = f"ftp://127.0.0.1:{site.server.port}/"
    assert curl(program, site.firewall, *CURL_WAYS[way], *epsv, url + "file") == CONTENT
    (tmp_path / "up").write_bytes(CONTENT)
    curl(
        program,
        site.firewall,
        *CURL_WAYS[way],
        *epsv,
        "--upload-file",
        str(tmp_path / "up"),
        url + "from-curl",
    )
    assert (site.server.home / "from-curl").read_bytes() == CONTENT
    assert b"from-curl" in curl(program, site.firewall, *CURL_WAYS[way], *epsv, url)


def test_read_only(start_firewall: StartFirewall, server: FtpServer) -> None:
    site = site_of(start_firewall, server, "read_only = true")
    with site.client() as client:
        assert downloaded(client) == CONTENT
        for attempt in ("STOR new", "DELE file", "MKD new", "RNFR file", "SITE CHMOD 777 file"):
            with pytest.raises(ftplib.error_perm, match="ftp_read_only"):
                client.sendcmd(attempt)
        assert downloaded(client) == CONTENT
    assert not (server.home / "new").exists()
    [record] = site.firewall.wait_for_records(1, lambda record: record.port == server.port)
    assert '["ftp","noted","ftp_read_only"]' in str(record.filters)


@pytest.mark.parametrize("line", ["PORT 127,0,0,2,{port}", "EPRT |1|127.0.0.2|{eport}|", "PORT 10,0,0,1,4,5"])
def test_a_bounce_reaches_nobody_and_stands_on_record(site: Site, line: str) -> None:
    with site.client() as client:
        assert client.sock is not None
        port = client.sock.getsockname()[1]
        with pytest.raises(ftplib.error_perm, match="ftp_bounce"):
            client.sendcmd(line.format(port="200,1", eport=51201))
        assert downloaded(client) == CONTENT
    [record] = site.firewall.wait_for_records(1, lambda record: record.client_port == port)
    assert '["ftp","noted","ftp_bounce"]' in str(record.filters)


def test_lftp_through_connect(site: Site, program: Program, tmp_path: Path) -> None:
    script = f"""
        set ftp:proxy http://{{proxy}}; set ftp:use-hftp no; open ftp://127.0.0.1:{{port}}; cls -1;
        get file -o {tmp_path}/down; put {tmp_path}/down -o from-lftp; mkdir -f d; rmdir d; mirror . {tmp_path}/all
    """
    assert "file" in lftp(program, site, [], script).splitlines()
    assert (tmp_path / "down").read_bytes() == CONTENT
    assert (site.server.home / "from-lftp").read_bytes() == CONTENT
    assert (tmp_path / "all" / "from-lftp").read_bytes() == CONTENT


@pytest.mark.parametrize("mode", ["on", "off"], ids=["passive", "active"])
def test_lftp_behind_proxychains(site: Site, program: Program, tmp_path: Path, mode: str) -> None:
    configuration = tmp_path / "proxychains.conf"
    configuration.write_text(f"strict_chain\n[ProxyList]\nsocks5 127.0.0.1 {site.firewall.port}\n")
    before = [program("proxychains4"), "-q", "-f", str(configuration)]
    script = (
        f"set ftp:passive-mode {mode}; open ftp://127.0.0.1:{{port}}; get file -o {tmp_path}/down; cls -1"
    )
    assert "file" in lftp(program, site, before, script).splitlines()
    assert (tmp_path / "down").read_bytes() == CONTENT


@pytest.mark.parametrize("mode", [[], ["--ftp-port", "-"]], ids=["passive", "active"])
def test_a_server_on_ipv6_and_a_client_on_ipv4(
    start_firewall: StartFirewall, program: Program, tmp_path: Path, mode: list[str]
) -> None:
    with ftp_server(tmp_path, "::1", allows_anywhere=False) as server:
        site = site_of(start_firewall, server)
        url = f"ftp://[::1]:{server.port}/file"
        assert curl(program, site.firewall, "--proxy", "socks5h://{proxy}", *mode, url) == CONTENT
        site.expect_nothing_left()
