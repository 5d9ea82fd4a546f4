"""Real programs behind `doorward run`, none of which is told of a proxy. Servers are at this machine's own address."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.capture.inside import NOBODY, need_address, needs_namespaces, own_address
from tests.end_to_end.running import REPOSITORY

from doorward.record import reader
from doorward.record.model import Record
from doorward.record.query import Query

pytestmark = needs_namespaces

# A program that knows of no library that could be replaced under it.
STATIC = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) { perror("connect"); return 1; }
    if (write(fd, "GET /hello.txt HTTP/1.0\r\n\r\n", 27) != 27) { perror("write"); return 2; }
    char buffer[65536]; ssize_t n, all = 0;
    while ((n = read(fd, buffer, sizeof buffer)) > 0) { all += n; fwrite(buffer, 1, n, stdout); }
    return n < 0 ? 3 : all == 0 ? 4 : 0;
}
"""


class Home:
    """A directory with a policy, and what was put on record there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        own = [f'"{address}"' for address in (own_address(4), own_address(6)) if address is not None]
        path.chmod(0o755)
        (path / "doorward.toml").write_text(
            '[log]\npath = "log.db"\n'
            f'[[rule]]\nname = "servers"\naction = "allow"\nto = [{", ".join(own)}]\nprotocols = ["any"]\n'
        )

    def run(self, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command behind the firewall; its environment has no proxy in it."""
        kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        kept["PYTHONPATH"] = str(REPOSITORY / "src")
        return subprocess.run(
            [sys.executable, "-m", "doorward", "run", "--", *command],
            cwd=self.path, env={**kept, **more}, text=True, capture_output=True, timeout=18, check=False,
        )  # fmt: skip

    def records(self) -> list[Record]:
        return list(reader.read(self.path / "log.db", Query(), newest_first=False))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    need_address()
    return Home(tmp_path)


@contextmanager
def website(directory: Path, version: int = 4) -> Iterator[int]:
    """Serves a directory at this machine's own address; gives the port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(directory))

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if version == 6 else socket.AF_INET

    with Server((need_address(version), 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "hello.txt").write_text("hello from outside\n")
    return directory


@pytest.mark.parametrize("version", [4, 6])
def test_curl(home: Home, files: Path, program: Callable[[str], str], version: int) -> None:
    host = need_address(version)
    shown = f"[{host}]" if version == 6 else host
    with website(files, version) as port:
        done = home.run(program("curl"), "-sS", f"http://{shown}:{port}/hello.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from outside\n", "")
    (record,) = home.records()
    assert (record.entry, record.address, record.port, record.rule) == ("captured", host, port, "servers")


def test_curl_is_refused_as_if_nobody_were_there(home: Home, program: Callable[[str], str]) -> None:
    began = time.monotonic()
    done = home.run(program("curl"), "-sS", "--max-time", "10", f"http://{NOBODY[4]}/")
    assert done.returncode in (7, 56)  # could not connect, or was reset
    assert time.monotonic() - began < 5
    assert "refused    1x" in done.stderr


def test_urllib(home: Home, files: Path) -> None:
    code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read())"
    with website(files) as port:
        done = home.run(sys.executable, "-c", code, f"http://{need_address()}:{port}/hello.txt")
    assert done.stdout == "b'hello from outside\\n'\n", done.stderr


def test_git_over_http(home: Home, tmp_path: Path, program: Callable[[str], str]) -> None:
    git = program("git")
    source, served = tmp_path / "source", tmp_path / "served"
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": os.environ["PATH"]}
    who = ("-c", "user.name=x", "-c", "user.email=x@example")
    for words in (
        ("init", "-q", str(source)),
        ("-C", str(source), *who, "commit", "-q", "--allow-empty", "-m", "first"),
        ("clone", "-q", "--bare", str(source), str(served / "repository.git")),
        ("-C", str(served / "repository.git"), "update-server-info"),
    ):
        subprocess.run([git, *words], check=True, timeout=10, env=quiet)
    with website(served) as port:
        url = f"http://{need_address()}:{port}/repository.git"
        done = home.run(git, "clone", "-q", url, "clone", **quiet)
    assert done.returncode == 0, done.stderr
    assert (home.path / "clone/.git/HEAD").exists()


def test_a_rule_for_a_program_is_for_what_was_launched(
    home: Home, files: Path, program: Callable[[str], str]
) -> None:
    policy = home.path / "doorward.toml"
    policy.write_text(policy.read_text() + f'process = ["{program("curl")}"]\n')
    with website(files) as port:
        url = f"http://{need_address()}:{port}/hello.txt?secret"
        done = home.run("curl", "-sS", url)
        assert (done.stdout, done.stderr) == ("hello from outside\n", "")
        inside = home.run("sh", "-c", f"curl -sS {url}")
        assert (inside.returncode in (7, 56), inside.stdout) == (True, ""), "it was launched as sh; reset"
    allowed, refused = home.records()
    assert (allowed.action, allowed.process) == ("allow", program("curl")), "and no argument"
    assert (refused.action, refused.process) == ("deny", program("sh"))
    told = subprocess.run(
        [sys.executable, "-m", "doorward", "explain", "--to", f"tcp://{need_address()}:80", "--process", "curl"],
        cwd=home.path, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        text=True, capture_output=True, timeout=18, check=True,
    ).stdout  # fmt: skip
    assert "ALLOW" in told


def test_a_static_binary(home: Home, files: Path, tmp_path: Path, program: Callable[[str], str]) -> None:
    source, binary = tmp_path / "static.c", tmp_path / "static"
    source.write_text(STATIC)
    compiled = subprocess.run(
        [program("gcc"), "-static", "-O1", "-o", str(binary), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if compiled.returncode:
        pytest.skip(f"no static libc here: {compiled.stderr[-200:]}")
    with website(files) as port:
        done = home.run(str(binary), need_address(), str(port))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("hello from outside\n")


def test_many_at_once_and_what_they_start(home: Home, files: Path, program: Callable[[str], str]) -> None:
    curl = program("curl")
    with website(files) as port:
        url = f"http://{need_address()}:{port}/hello.txt"
        done = home.run("sh", "-c", f"for n in 1 2 3 4 5 6 7 8; do {curl} -sS {url} & done; wait")
    assert done.stdout == "hello from outside\n" * 8
    assert len(home.records()) == 8


def test_an_ordinary_user_needs_no_rights(files: Path, program: Callable[[str], str]) -> None:
    """Root's tests run as root; this one becomes somebody who is not."""
    if os.geteuid() != 0:
        pytest.skip("every other test here is run by an ordinary user already")
    python, setpriv = _python_for_everybody(), program("setpriv")
    sites = [path for path in sys.path if "site-packages" in path]
    path = os.pathsep.join([str(REPOSITORY / "src"), *sites])
    command = [
        setpriv, "--reuid=54321", "--regid=54321", "--clear-groups", python, "-m", "doorward", "run", "--",
        program("curl"), "-sS",
    ]  # fmt: skip
    with website(files) as port, tempfile.TemporaryDirectory(prefix="doorward-") as name:
        home = Home(Path(name))  # pytest's own are for its user alone
        home.path.chmod(0o777)
        done = subprocess.run(
            [*command, f"http://{need_address()}:{port}/hello.txt"], cwd=home.path,
            env={"PYTHONPATH": path, "PATH": os.environ["PATH"]},
            text=True, capture_output=True, timeout=18, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "hello from outside\n"), done.stderr


def _python_for_everybody() -> str:
    """An interpreter of this version that is not in somebody's home."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(f"/usr/bin/python{version}"), Path(sys.executable).resolve()):
        if path.exists() and not path.resolve().is_relative_to(Path.home()):
            return str(path)
    pytest.skip("no Python here that an ordinary user may run")


def test_a_resolver_on_loopback_is_answered(
    home: Home, tmp_path: Path, program: Callable[[str], str]
) -> None:
    """As with systemd-resolved: the only nameserver is 127.0.0.53, which inside is the program's own loopback."""
    if os.geteuid() != 0:
        pytest.skip("only root can show the program another /etc/resolv.conf")
    unshare = program("unshare")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "names.py").write_text(
        "from doorward.api import ApplicationFilter, EventKind, Interest, SessionFilter\n"
        "class Session(SessionFilter):\n"
        "    async def on_resolve(self, event):\n"
        f"        event.set_result('{need_address()}')\n"
        "class Names(ApplicationFilter):\n"
        "    interest = Interest.of('any', events=[EventKind.RESOLVE])\n"
        "    def session_filter(self, session): return Session()\n"
    )
    rules = (home.path / "doorward.toml").read_text()
    rule = '[[rule]]\nname = "by name"\naction = "allow"\nto = ["web.example"]\nprotocols = ["any"]\n'
    (home.path / "doorward.toml").write_text(f'{rules}{rule}[[filter]]\nname = "names"\nuse = "names.py"\n')
    code = "import socket; print(socket.getaddrinfo('web.example', 80, socket.AF_INET)[0][4][0])"
    inner = (
        f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && "
        f'exec {sys.executable} -m doorward run -- {sys.executable} -c "{code}"'
    )
    done = subprocess.run(
        [unshare, "--mount", "sh", "-c", inner], cwd=home.path, text=True, capture_output=True, timeout=18,
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": os.environ["PATH"]}, check=False,
    )  # fmt: skip
    assert done.stdout == f"{need_address()}\n", done.stderr


def test_removing_the_rules_gives_no_network(home: Home, program: Callable[[str], str]) -> None:
    """As whoever the user is: the program has no right to; and if it had, there is no other device."""
    nft = shutil.which("nft")
    flush = f"{nft} flush ruleset; " if nft else ""
    ip = program("ip")
    done = home.run(
        "sh", "-c",
        f"{flush}{ip} link add x type dummy; {ip} route del local default dev lo table local; {ip} link",
    )  # fmt: skip
    assert done.stderr.count("not permitted") >= 2, done.stderr
    assert "lo:" in done.stdout
    assert "2:" not in done.stdout
