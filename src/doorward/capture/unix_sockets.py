"""Unix sockets lead past the network, so a namespace does not hold them. Some are hidden from the program, by mounts.

Those of name services always: through them the C library would resolve names without anybody judging them; without
them it asks by DNS, which is caught. Others only if asked for: desktop, agents, containers, system services.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from doorward.capture import kernel

_NAME_SERVICES: Final = (
    *("run/nscd/socket", "run/.nscd_socket", "run/unscd/socket"),
    *("run/systemd/resolve/io.systemd.Resolve", "run/systemd/resolve/io.systemd.Resolve.Monitor"),
    *("run/avahi-daemon/socket", "run/systemd/userdb/io.systemd.Resolve"),
)
_DIRECTORIES: Final = (
    *("tmp/.X11-unix", "tmp/.ICE-unix", "tmp/.font-unix"),
    *("run/dbus", "run/podman", "run/containerd", "run/libvirt", "run/snapd", "run/cups", "run/pcscd"),
)
_SOCKETS: Final = (
    *(
        "run/docker.sock",
        "run/snapd.socket",
        "run/snapd-snap.socket",
        "run/systemd/private",
        "run/acpid.socket",
    ),
    *("run/systemd/notify", "run/crio/crio.sock", "run/buildkit/buildkitd.sock"),
)
# Where a program is told of one.
_VARIABLES: Final = ("SSH_AUTH_SOCK", "GPG_AGENT_INFO", "DOCKER_HOST", "DBUS_SESSION_BUS_ADDRESS")


def hidden(*, private: bool, environment: Mapping[str, str], user: int, root: Path = Path("/")) -> list[Path]:
    """What is there to be hidden: name services, and with `private` all that is known."""
    paths = [root / name for name in _NAME_SERVICES]
    if private:
        paths += [root / name for name in (*_DIRECTORIES, *_SOCKETS)]
        paths += [
            root / "run/user" / str(user),
            *(root / path.relative_to("/") for path in _told(environment)),
        ]
    return [path for path in dict.fromkeys(map(Path.resolve, paths)) if path.exists()]


def hide(paths: list[Path]) -> None:
    """Put nothing in the place of each, for this process and what comes of it. Raises OSError.

    To be called with all rights over a user namespace of one's own.
    """
    if not paths:
        return
    kernel.unshare(kernel.NEW_MOUNTS)
    kernel.mounts_stay_here()
    for path in paths:
        if path.is_dir():
            kernel.mount_nothing(path)
        else:
            kernel.mount_over(path, os.devnull)


def _told(environment: Mapping[str, str]) -> Iterator[Path]:
    """Sockets that variables name: a path, or one among the words of an address as D-Bus and Docker write them."""
    for name in _VARIABLES:
        for word in (
            environment.get(name, "").replace("=", " ").replace(",", " ").replace("unix:", " ").split()
        ):
            path = Path("/" + word.lstrip("/"))
            if word.startswith("/") and path.is_socket():
                yield path
