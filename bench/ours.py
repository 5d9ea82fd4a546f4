"""Doorward's own policies for the bench, and the filter that it runs there."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.peer import Place

RULES = 100
WORKERS = max(2, os.cpu_count() or 1)
# What the filters of the bench look for: a literal with a pattern behind it. It does not occur in the load.
SEARCHED = r"account [0-9]{8}"

_RULE = """
[[rule]]
name = "other {number}"
action = "{action}"
from = {clients}
to = {destinations}
protocols = {protocols}
"""

_OWN_RULE = """
[[rule]]
name = "bench"
action = "allow"
from = ["127.0.0.0/8"]
to = ["127.0.0.1"]
protocols = ["any"]
"""

_HEAD = """[listen]
proxy = ["127.0.0.1:{port}"]
{listen}
[log]
path = "doorward.db"
[control]
path = "doorward.sock"
"""

_HEARS = """
from doorward.api import ApplicationFilter, ConnectEvent, Interest, Session, SessionFilter


class Hears(ApplicationFilter):
    interest = Interest.of("{protocols}")

    def session_filter(self, session: Session) -> SessionFilter:
        return HearsConnects()


class HearsConnects(SessionFilter):
    async def on_connect(self, event: ConnectEvent) -> None:
        pass
"""

_SEARCH = f"""
import re

from doorward.api import Interest, StreamFilter

SEARCHED = re.compile(rb"{SEARCHED}")


class Search(StreamFilter):
    interest = Interest.of("any")

    def client_data(self, data: bytes) -> bytes:
        if SEARCHED.search(data):
            self.connection.kill()
        return data

    server_data = client_data
"""


def _other_rule(number: int) -> str:
    """Rules as in a grown policy, four kinds in turn: for names, zones, networks, and networks for some clients.

    None of them matches the bench; those of the last two kinds are for its clients as well as others.
    """
    destinations = (
        f'["host{number}.example.org"]',
        f'["*.zone{number}.example.net", "zone{number}.example.net"]',
        f'["198.51.100.{number}", "10.{number}.0.0/16"]',
        f'["192.0.2.{number}", "*.service-{number}.example"]',
    )[number % 4]
    return _RULE.format(
        number=number,
        action="deny" if number % 5 == 4 else "allow",
        clients='["192.168.0.0/16"]' if number % 4 == 3 else '["127.0.0.0/8", "192.168.0.0/16"]',
        destinations=destinations,
        protocols='["https"]' if number % 4 < 2 else f'["tcp/{9000 + number}", "https"]',
    )


def policy(port: int, listen: str = "") -> str:
    """`RULES` rules, of which the one in the middle lets the bench through; every connection recorded."""
    others = [_other_rule(number) for number in range(RULES - 1)]
    half = len(others) // 2
    return _HEAD.format(port=port, listen=listen) + "".join([*others[:half], _OWN_RULE, *others[half:]])


def plain(place: Place, listen: str = "") -> list[str]:
    path = place.directory / "doorward.toml"
    path.write_text(policy(place.port, listen))
    return ["-m", "doorward", "serve", "--policy", str(path)]


def workers(place: Place) -> list[str]:
    return plain(place, f"workers = {WORKERS}")


def _with_filter(source: str) -> Callable[[Place], list[str]]:
    def prepare(place: Place) -> list[str]:
        arguments = plain(place)
        (place.directory / "joined.py").write_text(source)
        with (place.directory / "doorward.toml").open("a") as text:
            text.write('[[filter]]\nname = "joined"\nuse = "joined.py"\n')
        return arguments

    return prepare


def hears(protocols: str) -> Callable[[Place], list[str]]:
    """With one filter that hears of connects of these protocols, and lets them be."""
    return _with_filter(_HEARS.format(protocols=protocols))


# With one filter that searches every chunk of every connection.
search = _with_filter(_SEARCH)
