"""ssh through the firewall with every ProxyCommand that is in use, and git over it, to a private server of our own."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import create_connection, socket

import pytest
from tests.end_to_end.running import RunningFirewall, wait_for
from tests.end_to_end.test_git import git

Program = Callable[[str], str]

pytestmark = pytest.mark.xdist_group("ssh")

PROXY_COMMANDS = {
    "socks5": ("nc.openbsd", "nc.openbsd -X 5 -x {proxy} %h %p"),
    "socks4": ("nc.openbsd", "nc.openbsd -X 4 -x {proxy} %h %p"),
    "connect": ("nc.openbsd", "nc.openbsd -X connect -x {proxy} %h %p"),
    "ncat, socks5": ("ncat", "ncat --proxy {proxy} --proxy-type socks5 %h %p"),
    "ncat, connect": ("ncat", "ncat --proxy {proxy} --proxy-type http %h %p"),
    "socat, socks4a": ("socat", "socat - SOCKS4A:127.0.0.1:%h:%p,socksport={port}"),
    "socat, connect": ("socat", "socat - PROXY:127.0.0.1:%h:%p,proxyport={port}"),
}


class SshServer:
    """A server that knows one key."""

    def __init__(self, program: Program, home: Path) -> None:
        self.home = home
        self.port = _free_port()
        home.mkdir(mode=0o700)
        for name in ("host", "client"):
            command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)]
            subprocess.run(command, check=True, timeout=20)
        (home / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {home}/client.pub\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        )
        if os.geteuid() == 0:  # as root it insists on this directory, which is made by nobody in a container
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (home / "log").open("wb") as log:
            command = [program("sshd"), "-D", "-e", "-f", str(home / "sshd_config")]
            self.process = subprocess.Popen(command, stderr=log)
        wait_for(self._answers, "sshd answers")

    def options(self, proxy_command: str) -> list[str]:
        """What makes ssh use this server's keys, nobody's configuration, and the proxy."""
        words = {
            "ProxyCommand": proxy_command,
            "IdentityFile": f"{self.home}/client",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        options = ["-F", "none", "-p", str(self.port)]
        for name, value in words.items():
            options += ["-o", f"{name}={value}"]
        return options

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.home / "log").read_text()
        try:
            with create_connection(("127.0.0.1", self.port), 5) as sock:
                return sock.recv(4) == b"SSH-"
        except OSError:
            return False


def _free_port() -> int:
    with socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def ssh_server(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """One server for the tests of this file."""
    server = SshServer(program, tmp_path_factory.mktemp("ssh") / "home")
    yield server
    server.process.terminate()
    server.process.wait(10)


@pytest.mark.parametrize("way", PROXY_COMMANDS)
def test_a_command_runs_and_a_large_answer_arrives_whole(
    firewall: RunningFirewall, program: Program, ssh_server: SshServer, way: str
) -> None:
    needed, template = PROXY_COMMANDS[way]
    program(needed)
    proxy_command = template.format(proxy=firewall.address, port=firewall.port)
    before = len(firewall.records())
    done = subprocess.run(
        [program("ssh"), *ssh_server.options(proxy_command), f"{getpass.getuser()}@127.0.0.1",
         "head -c 5000000 /dev/zero; cat"],
        input=b"end", capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stdout)) == (0, 5_000_003), done.stderr
    firewall.wait_for_records(before + 1)
    assert firewall.records()[-1].action == "allow"


def test_git_over_ssh(
    firewall: RunningFirewall, program: Program, ssh_server: SshServer, tmp_path: Path
) -> None:
    program("nc.openbsd")
    git(program, "init", "--quiet", "--initial-branch=main", "work", cwd=tmp_path)
    (tmp_path / "work" / "file").write_bytes(os.urandom(2_000_000))
    git(program, "add", ".", cwd=tmp_path / "work")
    git(program, "commit", "--quiet", "--message", "one", cwd=tmp_path / "work")
    options = " ".join(
        f"'{option}'" for option in ssh_server.options(f"nc.openbsd -X 5 -x {firewall.address} %h %p")
    )
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{ssh_server.port}{tmp_path}/work"
    git(program, "clone", "--quiet", url, "copy", cwd=tmp_path, GIT_SSH_COMMAND=f"ssh {options}")
    assert (tmp_path / "copy" / "file").read_bytes() == (tmp_path / "work" / "file").read_bytes()
