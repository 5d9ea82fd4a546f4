"""The proxies that are measured: how each is found, configured, started, known to be ready, and ended.

`PEERS` is the table; adding a proxy means adding a row. Every proxy listens on loopback, logs to a file in a
temporary directory as its users would have it, and lets the bench through.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Via
from bench.processes import cpu_seconds, pss_bytes

REPOSITORY = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
OTHER_RULES = 20
# Who relays UDP at all.
DATAGRAM_PEERS = frozenset({"direct", "doorward", "dante"})


class PeerError(Exception):
    """A proxy did not start, or did not stay; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    `program` is looked up in PATH, or is what `--program NAME=PATH` says. `prepare` writes the configuration
    into the directory and returns the arguments that start the proxy in the foreground on that port. `how` is
    the configuration in words, for the results.
    """

    name: str
    via: Via
    how: str
    program: str
    version_arguments: tuple[str, ...]
    prepare: Callable[[Path, int], list[str]]


def _doorward(directory: Path, port: int) -> list[str]:
    """Ten rules that do not match, the one that does, ten that are never reached."""
    other = [
        f"""
[[rule]]
name = "other {number}"
action = "{"allow" if number % 2 else "deny"}"
from = ["10.{number}.0.0/16"]
to = ["198.51.100.{number}", "*.service-{number}.example"]
protocols = ["tcp/{9000 + number}", "https"]
"""
        for number in range(OTHER_RULES)
    ]
    own = """
[[rule]]
name = "bench"
action = "allow"
from = ["127.0.0.0/8"]
to = ["127.0.0.1"]
protocols = ["any"]
"""
    head = f"""[listen]
proxy = ["127.0.0.1:{port}"]
[log]
path = "doorward.db"
[control]
path = "doorward.sock"
"""
    half = OTHER_RULES // 2
    policy = directory / "doorward.toml"
    policy.write_text(head + "".join([*other[:half], own, *other[half:]]))
    return ["-m", "doorward", "serve", "--policy", str(policy)]


_FILTER = """
from doorward.api import ApplicationFilter, ConnectEvent, Interest, Session, SessionFilter


class Hears(ApplicationFilter):
    interest = Interest.of("{protocols}")

    def session_filter(self, session: Session) -> SessionFilter:
        return HearsConnects()


class HearsConnects(SessionFilter):
    async def on_connect(self, event: ConnectEvent) -> None:
        pass
"""


def _doorward_with_filter(protocols: str) -> Callable[[Path, int], list[str]]:
    """The same with one filter that hears of connects of these protocols, and lets them be."""

    def prepare(directory: Path, port: int) -> list[str]:
        arguments = _doorward(directory, port)
        (directory / "hears.py").write_text(_FILTER.format(protocols=protocols))
        with Path(arguments[-1]).open("a") as policy:
            policy.write('[[filter]]\nname = "hears"\nuse = "hears.py"\n')
        return arguments

    return prepare


def _dante(directory: Path, port: int) -> list[str]:
    # Dante changes to these users on its way; only root may name others than itself.
    root = os.geteuid() == 0
    privileged, unprivileged = ("root", "nobody") if root else (getpass.getuser(), getpass.getuser())
    configuration = directory / "danted.conf"
    rule = "{ from: 0.0.0.0/0 to: 0.0.0.0/0 log: connect disconnect error }"
    configuration.write_text(
        f"""logoutput: {directory / "danted.log"}
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: {privileged}
user.unprivileged: {unprivileged}
client pass {rule}
socks pass {rule}
"""
    )
    return ["-f", str(configuration)]


def _mitmproxy(mode: str, *, unread: bool) -> Callable[[Path, int], list[str]]:
    def prepare(directory: Path, port: int) -> list[str]:
        return [
            *("-q", "--mode", mode, "--listen-host", "127.0.0.1", "--listen-port", str(port)),
            *("--set", f"confdir={directory}", "--ignore-hosts" if unread else "--tcp-hosts", ".*"),
        ]

    return prepare


_DOORWARD_HOW = (
    f"the bench's rule in the middle of {OTHER_RULES} others, every connection recorded in the log store"
)
_DANTE_HOW = "pass all; connect, disconnect and error logged to a file"
_MITMPROXY_HOW = "mitmdump -q, every host as raw TCP (each chunk is an event, as it is made for), no log"
_UNREAD_HOW = "mitmdump -q, every host ignored (bytes passed on unread, the least work it can do), no log"

PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("doorward", "socks5", _DOORWARD_HOW, sys.executable, ("-m", "doorward", "--version"), _doorward),
        Peer(
            "doorward-connect",
            "connect",
            f"HTTP CONNECT; {_DOORWARD_HOW}",
            sys.executable,
            ("-m", "doorward", "--version"),
            _doorward,
        ),
        Peer(
            "doorward-handler",
            "socks5",
            f"one filter hears of every connect; {_DOORWARD_HOW}",
            sys.executable,
            ("-m", "doorward", "--version"),
            _doorward_with_filter("any"),
        ),
        Peer(
            "doorward-uninterested",
            "socks5",
            f"one filter, for another port; {_DOORWARD_HOW}",
            sys.executable,
            ("-m", "doorward", "--version"),
            _doorward_with_filter("tcp/9"),
        ),
        Peer("dante", "socks5", _DANTE_HOW, "danted", ("-v",), _dante),
        Peer(
            "mitmproxy",
            "socks5",
            _MITMPROXY_HOW,
            "mitmdump",
            ("--version",),
            _mitmproxy("socks5", unread=False),
        ),
        Peer(
            "mitmproxy-unread",
            "socks5",
            _UNREAD_HOW,
            "mitmdump",
            ("--version",),
            _mitmproxy("socks5", unread=True),
        ),
        Peer(
            "mitmproxy-connect",
            "connect",
            f"HTTP CONNECT (mode regular); {_UNREAD_HOW}",
            "mitmdump",
            ("--version",),
            _mitmproxy("regular", unread=True),
        ),
    )
}


def _environment() -> dict[str, str]:
    """Ours, with the tree under test first on the import path and no proxy settings to mislead anyone."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"PYTHONPATH": str(REPOSITORY / "src")}


@dataclass(frozen=True)
class Installed:
    """A peer whose program was found, with the version it states."""

    peer: Peer
    program: str
    version: str


def find(peer: Peer, programs: Mapping[str, str]) -> Installed | str:
    """The peer as it is installed here, or the reason why it must be skipped, in one line."""
    program = shutil.which(programs.get(peer.program, peer.program))
    if program is None:
        return f"{peer.program} is not installed (in PATH, or give --program {peer.program}=PATH)"
    asked = subprocess.run(
        [program, *peer.version_arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=_environment(),
    )
    words = (asked.stdout or asked.stderr).strip().splitlines() or ["it says nothing"]
    if asked.returncode != 0:
        return f"{' '.join(peer.version_arguments)} fails: {words[-1]}"
    return Installed(peer, program, re.sub(r"\s+", " ", words[0]).strip())


@dataclass(frozen=True)
class Running:
    """A proxy that accepts connections, with a meter for what it costs."""

    port: int
    root: int

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.root)

    def pss_bytes(self) -> int:
        return pss_bytes(self.root)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _accepts(port):
        late = time.monotonic() > deadline
        if late or process.poll() is not None:
            what = "does not listen in time" if late else f"ended with status {process.returncode}"
            raise PeerError(f"{what}: {' / '.join(output.read_text(errors='replace').splitlines()[-5:])}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the proxy to end; what is left of the group that it was started in is killed."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass  # the group is killed below
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nothing is left: the usual case
    process.wait()


@contextmanager
def running(installed: Installed, directory: Path) -> Iterator[Running]:
    """Start the proxy with its files in `directory`, which is made; end it afterwards.

    Raises PeerError if it does not listen within `READY_TIMEOUT_S`.
    """
    directory.mkdir(parents=True)
    port = _free_port()
    output = directory / "output.txt"
    command = [installed.program, *installed.peer.prepare(directory, port)]
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that its workers can be ended with it
        )
    try:
        _wait_until_ready(process, port, output)
        yield Running(port, process.pid)
    finally:
        _stop(process)
