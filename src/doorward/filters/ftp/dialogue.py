"""Which reply belongs to which command, and in which order the client hears them.

A server answers commands in their order, each with any number of 1xx and one final reply; first of all comes its
greeting. What the filter answers itself takes its place in that order, so a client that sends several commands at
once can still tell the answers apart.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.filters.ftp.words import ONLY_FOR, TRANSFERS

if TYPE_CHECKING:
    from doorward.filters.ftp.holes import Hole
    from doorward.wire.ftp import Reply

PENDING_MAX: Final = 64
GREETING: Final = ""


@dataclass(slots=True, eq=False)
class Pending:
    """A command whose final reply has not come; `answer` is ours, if the server was not asked."""

    verb: str
    hole: Hole | None = None  # for its data connection
    answer: Reply | None = None


class UnaskedReply(Exception):
    """A reply that changes what the client does next, and nothing that it had asked for."""


class Dialogue:
    """The commands that wait, oldest first. It begins with the greeting."""

    def __init__(self) -> None:
        self._pending: deque[Pending] = deque([Pending(GREETING)])
        self._greeted = False

    @property
    def greeted(self) -> bool:
        """Whether the server has said who it is."""
        return self._greeted

    @property
    def is_full(self) -> bool:
        return len(self._pending) >= PENDING_MAX

    @property
    def transferring(self) -> bool:
        """Whether a command that uses a data connection waits."""
        return any(pending.verb in TRANSFERS for pending in self._pending)

    def waits_for(self, verb: str) -> bool:
        """Whether such a command waits."""
        return any(pending.verb == verb for pending in self._pending)

    def asked(self, verb: str, hole: Hole | None = None) -> None:
        """The server was asked."""
        self._pending.append(Pending(verb, hole))

    def answer(self, reply: Reply) -> list[Reply]:
        """We answer the newest command; what the client is to hear now."""
        self._pending.append(Pending("", None, reply))
        return self._due()

    def replied(self, reply: Reply) -> tuple[Pending | None, list[Reply]]:
        """The server has said this: the command that it answers, and answers of ours that come before it.

        None where nobody asked, such as a server that says goodbye. Raises UnaskedReply.
        """
        before = self._skip_to(ONLY_FOR[reply.code]) if reply.code in ONLY_FOR else []
        if not self._pending:
            return None, before
        pending = self._pending[0]
        if reply.is_final:
            self._pending.popleft()
            self._greeted = True
        return pending, before

    def due(self) -> list[Reply]:
        """Answers of ours whose turn it is, after a reply was passed on."""
        return self._due()

    def _due(self) -> list[Reply]:
        ready: list[Reply] = []
        while self._pending and (answer := self._pending[0].answer) is not None:
            ready.append(answer)
            self._pending.popleft()
        return ready

    def _skip_to(self, verbs: frozenset[str]) -> list[Reply]:
        """Servers that answer ABOR and the transfer with one reply owe us one: what only such a command gets tells."""
        if not any(pending.verb in verbs for pending in self._pending):
            raise UnaskedReply
        skipped: list[Reply] = []
        while self._pending[0].verb not in verbs:
            answer = self._pending.popleft().answer
            if answer is not None:
                skipped.append(answer)
        return skipped
