"""Filter files for tests, as text, and how a policy names them."""

from __future__ import annotations

from typing import Final

# Writes down what passes, changes nothing, never has enough.
WATCH: Final = """
from doorward.api import StreamFilter

class Watch(StreamFilter):
    pass
"""
# Every lower-case x on its way to the server becomes a y.
CHANGE: Final = """
from doorward.api import StreamFilter

class Change(StreamFilter):
    def client_data(self, data):
        return data.replace(b"x", b"y")
"""
# Refuses what a server says that is not fit for clients.
REFUSE: Final = """
from doorward.api import Refuse, StreamFilter

class NoSecrets(StreamFilter):
    def server_data(self, data):
        if b"secret" in data:
            raise Refuse("holds_secrets", "the server said a secret")
        return data
"""
FAIL: Final = """
from doorward.api import StreamFilter

class Broken(StreamFilter):
    def server_data(self, data):
        raise ZeroDivisionError("a mistake in the filter")
"""
DENY: Final = """
from doorward.api import ApplicationFilter, SessionFilter

class Deny(ApplicationFilter):
    def session_filter(self, session):
        return DenySession()

class DenySession(SessionFilter):
    async def on_connect(self, event):
        event.connection.deny("not_today")
"""
# Tells everything that happens to it.
TELL: Final = """
from doorward.api import ApplicationFilter, SessionFilter

VERSION = {version!r}

class Tell(ApplicationFilter):
    async def start(self, firewall):
        self.log = firewall.log
        self.log("started", version=VERSION)
    async def stop(self):
        self.log("stopped", version=VERSION)
    def session_filter(self, session):
        self.log("session", version=VERSION)
        return TellSession(self.log)

class TellSession(SessionFilter):
    def __init__(self, log):
        self.log = log
        self.connections = 0
    async def on_connect(self, event):
        self.connections += 1
        self.log("connect", version=VERSION)
    async def on_terminating(self, event):
        self.log("terminating", version=VERSION, connections=self.connections, how=event.end)
"""
NOT_STARTING: Final = """
from doorward.api import ApplicationFilter

class NotStarting(ApplicationFilter):
    async def start(self, firewall):
        raise RuntimeError("no licence")
"""


def use(name: str, *more: str) -> str:
    """The table of the policy file for the file NAME.py."""
    return "\n".join(["[[filter]]", f'name = "{name}"', f'use = "{name}.py"', *more, ""])
