"""Real programs behind a gateway: curl, git, ssh, dig, Node, Python, a static program; none is told of a proxy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.gateways import HEAD, RULE, Gateway, gateways
from tests.end_to_end.running import RunningFirewall, wait_for
from tests.end_to_end.wires import CLIENT, SERVER, unshare_flags, why_not

Program = Callable[[str], str]

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

HOSTS = "127.0.0.1 localhost inside.test\n10.2.0.2 web.test\nfd02::2 web.test\n10.2.0.3 other.test\n"
FILES = {"/etc/hosts": HOSTS, "/etc/nsswitch.conf": "hosts: files\n"}
# A name server that is not there: nobody but the gateway can answer.
ASKING = {"/etc/resolv.conf": "nameserver 10.2.0.53\noptions timeout:2 attempts:1\n", "/etc/hosts": ""}
BY_NAME = (
    '[[rule]]\nname = "by name"\naction = "allow"\nto = ["web.test", "inside.test"]\nprotocols = ["any"]\n'
)

STATIC = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(8000)};
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) return 1;
    if (write(fd, "GET / HTTP/1.0\r\n\r\n", 18) != 18) return 2;
    char buffer[65536]; ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0) fwrite(buffer, 1, n, stdout);
    return n < 0 ? 3 : 0;
}
"""


class Site:
    """A gateway with a firewall, and a web server behind it with one page and one repository."""

    def __init__(self, gateway: Gateway, home: Path) -> None:
        self.gateway = gateway
        self.home = home
        self.wires = gateway.wires
        self.firewall: RunningFirewall = gateway.firewall(HEAD + BY_NAME + RULE, files=FILES)

    def client(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command whose names are asked for over the wires."""
        done = subprocess.run(
            [*self.wires.enter_with("client", ASKING), *command],
            capture_output=True, text=True, timeout=20, check=False, cwd=self.home, env=_bare(),
        )  # fmt: skip
        assert not check or not done.returncode, (command, done.stdout, done.stderr)
        return done

    def records(self, count: int, host: str | None = None) -> list[str]:
        """The rule of each connection of the client's that was allowed."""
        found = self.firewall.wait_for_records(
            count, lambda r: r.action == "allow" and (host is None or r.host == host)
        )
        return [record.rule or "" for record in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from tests.end_to_end.conftest import starting_firewalls

    home = tmp_path_factory.mktemp("gateway")
    with starting_firewalls() as start, gateways(start) as gateway:
        gateway.serve()
        gateway.wires.serve("server", *gateway.command("web"))
        yield Site(gateway, home)


def _bare() -> dict[str, str]:
    """No proxy settings and nobody's configuration."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}


def test_curl_by_address_and_by_name(site: Site, program: Program) -> None:
    curl = program("curl")
    for host in ("10.2.0.2", "[fd02::2]", "web.test"):
        assert site.client(curl, "-sS", "--max-time", "10", f"http://{host}:8000/").stdout == "page\n"
    assert site.client(curl, "-sS", "-6", "--max-time", "10", "http://web.test:8000/").stdout == "page\n"
    (first, second) = site.firewall.wait_for_records(2, lambda r: r.host == "web.test")
    assert {first.address, second.address} <= set(SERVER.values())
    assert (first.rule, first.entry) == ("by name", "transparent")


def test_a_name_that_is_refused_is_refused_by_dns(site: Site, program: Program) -> None:
    done = site.client(program("curl"), "-sS", "--max-time", "10", "http://other.test:8000/", check=False)
    assert done.returncode == 6
    assert "Could not resolve host" in done.stderr
    (record, *_) = site.firewall.wait_for_records(1, lambda r: r.host == "other.test")
    assert (record.operation, record.action, record.client_address) == ("resolve", "deny", CLIENT[4])


def test_dig_over_datagrams_and_streams_and_a_name_that_leads_inside(site: Site, program: Program) -> None:
    dig = [program("dig"), "+tries=1", "+time=5"]
    for server in ("10.2.0.53", "fd02::53"):
        for way in ("+notcp", "+tcp"):
            done = site.client(*dig, "+short", way, f"@{server}", "web.test")
            assert done.stdout == "10.2.0.2\n", (server, way)
    # Policy allows the name, and it is this machine that it leads to.
    done = site.client(*dig, "@10.2.0.53", "inside.test")
    assert "status: NXDOMAIN" in done.stdout
    assert "127.0.0.1" not in done.stdout.replace("127.0.0.1 localhost", "")


def test_a_stream_that_lies_about_a_length_is_reset(site: Site) -> None:
    lie = """
import socket
s = socket.create_connection(("10.2.0.53", 53), 5)
s.send(bytes((255, 255, 0, 0, 0)))
s.recv(9)
"""
    assert "ConnectionResetError" in site.client(sys.executable, "-c", lie, check=False).stderr
    (record,) = site.firewall.wait_for_records(1, lambda r: r.reason == "dns_bad_length")
    assert record.client_address == CLIENT[4]


def test_python_and_node(site: Site, program: Program) -> None:
    fetch = "import urllib.request; print(urllib.request.urlopen('http://web.test:8000/', timeout=5).read())"
    assert site.client(sys.executable, "-c", fetch).stdout == "b'page\\n'\n"
    script = "require('http').get('http://web.test:8000/', r => r.on('data', d => console.log(String(d))))"
    assert site.client(program("node"), "-e", script).stdout == "page\n\n"


def test_a_static_program(site: Site, program: Program) -> None:
    source = site.home / "get.c"
    source.write_text(STATIC)
    subprocess.run([program("gcc"), "-static", "-o", site.home / "get", source], check=True, timeout=20)
    assert site.client(f"{site.home}/get", "10.2.0.2").stdout.endswith("page\n")


def test_git_by_its_own_protocol(site: Site, program: Program) -> None:
    git = program("git")
    repository = _repository(git, site.home / "one")
    options = [
        "--base-path=" + str(site.home),
        "--export-all",
        "--listen=10.2.0.2",
        "--listen=fd02::2",
        "--reuseaddr",
    ]
    site.wires.start("server", git, "-c", "safe.directory=*", "daemon", *options)
    ask = [git, "ls-remote", f"git://10.2.0.2/{repository.name}"]
    wait_for(lambda: site.client(*ask, check=False).returncode == 0, "git answers")
    site.client(git, "clone", "-q", f"git://web.test/{repository.name}", str(site.home / "cloned"))
    assert (site.home / "cloned" / "file").read_bytes() == (repository / "file").read_bytes()


def test_git_over_ssh(site: Site, program: Program) -> None:
    if unshare_flags() != "-n":
        pytest.skip("sshd needs several users: only as root")
    git, home = program("git"), site.home / "ssh"
    home.mkdir(mode=0o700)
    repository = _repository(git, site.home / "two")
    for name in ("host", "client"):
        subprocess.run(
            [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True
        )
    (home / "sshd_config").write_text(
        f"ListenAddress 10.2.0.2:22\nListenAddress [fd02::2]:22\n"
        f"HostKey {home}/host\nAuthorizedKeysFile {home}/client.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    site.wires.start("server", program("sshd"), "-D", "-e", "-f", str(home / "sshd_config"))
    ssh = f"{program('ssh')} -F none -i {home}/client -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR"
    ssh += " -o UserKnownHostsFile=/dev/null"
    clone = [git, "-c", f"core.sshCommand={ssh}", "clone", "-q", f"root@web.test:{repository}"]
    wait_for(lambda: _is_cloned(site, clone), "git clones over ssh")
    assert (site.home / "over-ssh" / "file").read_bytes() == (repository / "file").read_bytes()
    assert "by name" in site.records(1, "web.test")


def _is_cloned(site: Site, clone: list[str]) -> bool:
    shutil.rmtree(site.home / "over-ssh", ignore_errors=True)
    return site.client(*clone, str(site.home / "over-ssh"), check=False).returncode == 0


def _repository(git: str, path: Path) -> Path:
    """With one file of a few megabytes that cannot be compressed."""
    path.mkdir()
    (path / "file").write_bytes(os.urandom(3_000_000))
    as_somebody = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "file"], [*as_somebody, "commit", "-q", "-m", "one"]):
        subprocess.run([git, "-C", path, *words], check=True, timeout=20, env=_bare())
    return path


def test_dns_as_traffic_like_any_other(start_firewall: StartFirewall, program: Program) -> None:
    policy = HEAD + 'dns = "policy"\n' + RULE.replace('"any"', '"dns"')
    with gateways(start_firewall) as gateway:
        gateway.wires.serve("server", *gateway.command("names"))
        gateway.firewall(policy)
        dig = [program("dig"), "+tries=1", "+time=5", "+short"]
        for way in ("+notcp", "+tcp"):
            done = gateway.wires.run("client", *dig, way, "@10.2.0.2", "anything.test")
            assert done.stdout == "192.0.2.77\n"
