"""What an operator may say about FTP, for all rules or for one.

settings = { read_only = true, tls = "pass", passive_ports = "50000-50100", commands_denied = ["SITE"] }
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

# Below it servers of the system listen; RFC 2577 section 3 wants no data connection there.
UNPRIVILEGED_PORT: Final = 1024
PORT_MAX: Final = 65_535

_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_VERB: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,15}")
_KEYS: Final = ("read_only", "tls", "passive_ports", "commands_denied")


class FtpSettings(NamedTuple):
    """Settings of one rule.

    `read_only`: nothing is written on the server. `passes_tls`: after AUTH TLS the control connection is opaque,
    and data connections then go to `passive_ports` (first and last) of the server, or nowhere.
    `denied`: verbs that are refused beside those.
    """

    read_only: bool = False
    passes_tls: bool = False
    passive_ports: tuple[int, int] | None = None
    denied: frozenset[str] = frozenset()


def read_settings(settings: Mapping[str, Any]) -> FtpSettings:
    """Raises ValueError with a sentence for the operator."""
    for key in settings:
        if key not in _KEYS:
            raise ValueError(f'unknown setting "{key}"; known are {", ".join(_KEYS)}')
    read_only = settings.get("read_only", False)
    if type(read_only) is not bool:
        raise ValueError("read_only is true or false")
    tls = settings.get("tls", "refuse")
    if tls not in ("refuse", "pass"):
        raise ValueError('tls is "refuse" or "pass"')
    denied = _denied(settings.get("commands_denied", []))
    if tls == "pass" and (read_only or denied):
        raise ValueError(
            'behind TLS nobody can see commands: tls = "pass" does not go with read_only or commands_denied'
        )
    return FtpSettings(read_only, tls == "pass", _ports(settings.get("passive_ports")), denied)


def _denied(verbs: object) -> frozenset[str]:
    if not isinstance(verbs, list) or not all(isinstance(v, str) and _VERB.fullmatch(v) for v in verbs):
        raise ValueError('commands_denied is a list of verbs, such as ["SITE", "DELE"]')
    return frozenset(verb.upper() for verb in verbs)


def _ports(text: object) -> tuple[int, int] | None:
    if text is None:
        return None
    found = _RANGE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError('passive_ports is written "50000-50100"')
    first, last = int(found[1]), int(found[2] or found[1])
    if not UNPRIVILEGED_PORT <= first <= last <= PORT_MAX:
        raise ValueError(f"passive_ports are {UNPRIVILEGED_PORT} to {PORT_MAX}, the lower one first")
    return first, last
