"""Why a namespace could not be made, and how to get what is missing. Only words: nothing is changed or tried here."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final, NamedTuple


class _Switch(NamedTuple):
    name: str
    value: str
    words: str


# Distributions shut namespaces to ordinary users in ways of their own.
_SWITCHES: Final = (
    _Switch(
        "kernel/unprivileged_userns_clone",
        "0",
        "user namespaces are switched off for ordinary users; "
        "an administrator allows them with: sysctl kernel.unprivileged_userns_clone=1",
    ),
    _Switch(
        "user/max_user_namespaces",
        "0",
        "this machine allows no user namespace; an administrator allows some with: "
        "sysctl user.max_user_namespaces=10000",
    ),
    _Switch(
        "user/max_net_namespaces",
        "0",
        "this machine allows no network namespace; an administrator allows some with: "
        "sysctl user.max_net_namespaces=10000",
    ),
    _Switch(
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor takes the rights away from user namespaces of ordinary users; an administrator gives this "
        "program an AppArmor profile with the line `userns,`, or allows all with: "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
_IN_CONTAINER: Final = (
    "the kernel refuses a user namespace here; inside a container its runtime has to allow it "
    "(Docker, Podman: --security-opt seccomp=unconfined, or a seccomp profile with unshare, setns and clone)"
)
_NO_NAMESPACES: Final = (
    "this kernel has no user namespaces (CONFIG_USER_NS), or no network namespaces (CONFIG_NET_NS)"
)
_TOO_MANY: Final = "too many namespaces exist already (user.max_user_namespaces, user.max_net_namespaces)"
_NO_PACKET_FILTER: Final = (
    "this kernel's packet filter lacks what catching needs; an administrator loads it with: "
    "modprobe -a nf_tables nft_tproxy nft_reject_inet"
)


def why_no_namespace(number: int, root: Path = Path("/proc")) -> str:
    """What keeps us from making a namespace, where the kernel said this errno; a sentence for the operator."""
    for name, value, words in _SWITCHES:
        if _value(root / "sys" / name) == value:
            return words
    if number == errno.ENOSPC:
        return _TOO_MANY
    if number == errno.EINVAL or not (root / "self" / "ns" / "user").exists():
        return _NO_NAMESPACES
    return _IN_CONTAINER


def why_no_rules(number: int, root: Path = Path("/proc")) -> str:
    """The same for the packet filter: without rights the namespace is at fault, otherwise the kernel."""
    if number in (errno.EPERM, errno.EACCES):
        return why_no_namespace(number, root)
    return _NO_PACKET_FILTER


def _value(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
