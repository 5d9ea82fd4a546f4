"""Client, gateway and server, each in a network namespace of its own, and a wire from each to the gateway.

    client 10.1.0.2 ── inner 10.1.0.1 gateway 10.2.0.1 outer ── 10.2.0.2 server       fd01::, fd02:: in the same way
    client 10.1.0.3, fd01::3 as a second address             server 10.2.0.3, fd02::3

Who is not root is so inside a user namespace of the tests' own. `run` and `start` execute programs in one of the three;
at the end everything that was started there is killed, and with it the namespaces are gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tests.end_to_end.running import PATIENCE_S, REPOSITORY

Where: TypeAlias = Literal["client", "gateway", "server"]

CLIENT: Final = {4: "10.1.0.2", 6: "fd01::2"}
GATEWAY: Final = {4: "10.1.0.1", 6: "fd01::1"}
OUTSIDE: Final = {4: "10.2.0.1", 6: "fd02::1"}
SERVER: Final = {4: "10.2.0.2", 6: "fd02::2"}
OTHER: Final = {4: "10.2.0.3", 6: "fd02::3"}
_HOLD: Final = ["sleep", "600"]


@cache
def why_not() -> str:
    """What keeps this machine from making such wires; empty if nothing does."""
    needed = ("unshare", "nsenter", "ip", "nft")
    missing = [name for name in needed if not _is_installed(name)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    why = _why_not_by(unshare_flags())
    return f"no network namespaces here: {why}" if why else ""


@cache
def unshare_flags() -> str:
    """Root needs no user namespace, if it may make the others."""
    return "-n" if os.geteuid() == 0 and not _why_not_by("-n") else "-Urn"


def _why_not_by(flags: str) -> str:
    try_it = "ip link add inner type veth peer name outer && nft add table inet probe"
    done = subprocess.run(
        ["unshare", flags, "sh", "-c", try_it],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        env=_environment(None),
    )
    return done.stderr.decode().strip() or "not allowed" if done.returncode else ""


class Wires:
    """See the module."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._holders: dict[Where, subprocess.Popen[bytes]] = {}
        try:
            self._holders["gateway"] = self._hold(["unshare", unshare_flags(), *_HOLD], None)
            for where in ("client", "server"):
                self._holders[where] = self._hold(
                    [*self.enter("gateway"), "unshare", "-n", *_HOLD], "gateway"
                )
            self._connect("client", "inner", 1, 3)
            self._connect("server", "outer", 2, 3)
        except BaseException:
            self.close()
            raise

    def enter(self, where: Where) -> list[str]:
        """What makes a command run there."""
        users = [] if unshare_flags() == "-n" else ["-U", "--preserve-credentials"]
        return ["nsenter", "-t", str(self._holders[where].pid), "-n", *users, "--"]

    def enter_with(self, where: Where, files: dict[str, str]) -> list[str]:
        """The same, with other contents in these files of /etc."""
        text = "".join(
            f"printf '%s' '{text}' > $d/x && mount --bind $d/x {path} && " for path, text in files.items()
        )
        text = text.replace("$d/x", "$d/${i}x").replace("printf", "i=x$i && printf")
        script = f'd=$(mktemp -d) && mount -t tmpfs none $d && {text} exec "$@"'
        return [*self.enter(where), "unshare", "-m", "sh", "-c", script, "sh"]

    def run(
        self,
        where: Where,
        *command: str,
        check: bool = True,
        env: dict[str, str] | None = None,
        data: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        done = subprocess.run(
            [*self.enter(where), *command],
            capture_output=True,
            text=True,
            input=data,
            timeout=PATIENCE_S,
            check=False,
            env=_environment(env),
        )
        assert not check or not done.returncode, (command, done.returncode, done.stdout, done.stderr)
        return done

    def start(
        self, where: Where, *command: str, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A command that runs until it is killed, at the latest with the wires."""
        process = subprocess.Popen(
            [*self.enter(where), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(env),
            start_new_session=True,
            cwd=REPOSITORY,
        )
        self._started.append(process)
        return process

    def serve(
        self, where: Where, *command: str, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """The same for a server that says "ready" in a line of its own, once it is."""
        process = self.start(where, *command, env=env)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == b"ready\n", (command, said + process.stdout.read())
        return process

    def ip(self, where: Where, *words: str) -> None:
        self.run(where, "ip", *words)

    def nft(self, text: str) -> None:
        """Load this at the gateway."""
        self.run("gateway", "nft", "-f", "-", data=text)

    def lead_here(self, mark: int) -> None:
        """What docs/gateway.md asks for: packets with this mark are delivered to the gateway itself."""
        for family in ("-4", "-6"):
            self.ip("gateway", family, "rule", "add", "fwmark", hex(mark), "lookup", "100")
            self.ip("gateway", family, "route", "add", "local", "default", "dev", "lo", "table", "100")

    def forward(self) -> None:
        """Let the gateway's kernel forward, as a gateway's does: closed must not rest on this."""
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.run("gateway", "sh", "-c", f"echo 1 > /proc/sys/{name.replace('.', '/')}")

    def close(self) -> None:
        """Idempotent."""
        for process in reversed(self._started):
            _kill(process, group=True)
        self._started.clear()
        for holder in reversed(self._holders.values()):
            _kill(holder, group=False)
        self._holders.clear()

    def _hold(self, command: Sequence[str], others: Where | None) -> subprocess.Popen[bytes]:
        """A process that keeps a network namespace of its own alive."""
        before = Path("/proc/self/ns/net").readlink()
        if others is not None:
            before = Path(f"/proc/{self._holders[others].pid}/ns/net").readlink()
        holder = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        here = Path("/proc/self/ns/net").readlink()
        _wait(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() not in (before, here))
        _wait(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n")
        return holder

    def _connect(self, where: Where, name: str, network: int, second: int) -> None:
        other = str(self._holders[where].pid)
        self.ip("gateway", "link", "set", "lo", "up")
        self.ip("gateway", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", other)
        batch = [f"addr add 10.{network}.0.1/24 dev {name}", f"addr add fd0{network}::1/64 dev {name} nodad"]
        self._batch("gateway", [*batch, f"link set {name} up"])
        batch = ["link set lo up"]
        for last in (2, second):
            batch.append(f"addr add 10.{network}.0.{last}/24 dev eth0")
            batch.append(f"addr add fd0{network}::{last}/64 dev eth0 nodad")
        batch += ["link set eth0 up", f"route add default via 10.{network}.0.1"]
        batch.append(f"-6 route add default via fd0{network}::1")
        # Source selection for IPv6 takes whichever address was added last, unless told otherwise.
        batch[-1] += f" src fd0{network}::2"
        self._batch(where, batch)

    def _batch(self, where: Where, lines: Sequence[str]) -> None:
        for line in lines:
            self.ip(where, *line.split())


@contextmanager
def wires() -> Iterator[Wires]:
    """Three namespaces, gone afterwards."""
    made = Wires()
    try:
        yield made
    finally:
        made.close()


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not _is(ready):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _is(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:
        return False


def _kill(process: subprocess.Popen[bytes], *, group: bool) -> None:
    try:
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        pass
    process.wait(PATIENCE_S)
    if process.stdout is not None:
        process.stdout.close()


def _is_installed(name: str) -> bool:
    return any(
        (Path(place) / name).exists() for place in [*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"]
    )


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    """No proxy settings, and no language."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept["PATH"] += ":/usr/sbin:/sbin"
    return kept | {"LC_ALL": "C", "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}"} | (more or {})
