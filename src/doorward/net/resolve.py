"""Names to addresses: once for each connection, remembered for a moment.

The system's resolver is asked (so /etc/hosts and nsswitch hold) in a small pool of threads. Answers are kept for
a few seconds, questions under way are shared, and both tables have a cap. Names under `localhost` never leave
the machine (RFC 6761, section 6.3).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from doorward.api.errors import DoorwardError, LinkError, NameNotFound, OutOfResources, Side, TimedOut
from doorward.policy.model import IPAddress

Addresses: TypeAlias = tuple[IPAddress, ...]
Lookup: TypeAlias = Callable[[str], Addresses]
LookupBack: TypeAlias = Callable[[str], tuple[str, ...]]

# A resolver that hangs holds its thread; the others must go on.
THREADS: Final = 32
# The system's resolver does not say how long an answer holds: seconds are short enough for every changed record.
REMEMBERED_S: Final = 10.0
FAILURE_REMEMBERED_S: Final = 2.0
ANSWERS_MAX: Final = 10_000
QUESTIONS_MAX: Final = 1_000
ADDRESSES_MAX: Final = 64

_LOOPBACK: Final[Addresses] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5), socket.EAI_FAIL})


class Resolver:
    """Asks, remembers, shares. `lookup` is blocking and runs in a thread."""

    def __init__(
        self, timeout_s: float, lookup: Lookup | None = None, lookup_back: LookupBack | None = None
    ) -> None:
        self.timeout_s = timeout_s
        self._lookup = lookup or system_lookup
        self._lookup_back = lookup_back or system_lookup_back
        self._asking_back = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")
        self._answers: OrderedDict[str, tuple[float, Addresses | DoorwardError]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[Addresses]] = {}

    async def resolve(self, name: str) -> Addresses:
        """Every address of a name, at most 64, in the resolver's order, each once.

        Raises NameNotFound, TimedOut, OutOfResources (too many questions under way), LinkError.
        """
        if name == "localhost" or name.endswith(".localhost"):
            return _LOOPBACK
        now = asyncio.get_running_loop().time()
        remembered = self._answers.get(name)
        if remembered is not None and remembered[0] > now:
            if isinstance(remembered[1], DoorwardError):
                raise type(remembered[1])(remembered[1].detail, side=remembered[1].side)
            return remembered[1]
        return await self._ask(name)

    async def resolve_address(self, address: IPAddress) -> tuple[str, ...]:
        """Every name of an address, the principal one first, at most 64. Not remembered. Raises as `resolve`."""
        if self._asking_back >= QUESTIONS_MAX:
            raise OutOfResources("too many addresses are being looked up", side=Side.OURS)
        self._asking_back += 1
        question = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup_back, str(address))
        question.add_done_callback(self._asked_back)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await asyncio.shield(question)
        except TimeoutError:
            raise TimedOut(
                f"no answer for the address within {self.timeout_s:g} s", side=Side.EXTERNAL
            ) from None

    def _asked_back(self, question: asyncio.Future[tuple[str, ...]]) -> None:
        self._asking_back -= 1
        if not question.cancelled():
            question.exception()  # whoever waited has met it; nobody may have

    async def _ask(self, name: str) -> Addresses:
        question = self._asking.get(name)
        if question is None:
            if len(self._asking) >= QUESTIONS_MAX:
                raise OutOfResources("too many names are being looked up", side=Side.OURS)
            loop = asyncio.get_running_loop()
            question = loop.run_in_executor(self._threads, self._lookup, name)
            self._asking[name] = question
            question.add_done_callback(lambda done: self._remember(name, done))
        try:
            async with asyncio.timeout(self.timeout_s):
                return await asyncio.shield(question)
        except TimeoutError:
            raise TimedOut(
                f"no answer for the name within {self.timeout_s:g} s", side=Side.EXTERNAL
            ) from None

    def _remember(self, name: str, question: asyncio.Future[Addresses]) -> None:
        self._asking.pop(name, None)
        if question.cancelled():
            return
        now = question.get_loop().time()
        error = question.exception()
        if error is None:
            self._answers[name] = (now + REMEMBERED_S, question.result())
        elif isinstance(error, DoorwardError):
            self._answers[name] = (now + FAILURE_REMEMBERED_S, error)
        else:
            return
        self._answers.move_to_end(name)
        while len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)

    def close(self) -> None:
        """Give up on what is under way; a thread inside the system's resolver ends with its question."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def system_lookup(name: str) -> Addresses:
    """Ask the system; blocks. Raises NameNotFound or LinkError."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            raise NameNotFound(error.strerror or "", side=Side.EXTERNAL) from None
        raise LinkError(error.strerror or "", side=Side.EXTERNAL) from None
    except (OSError, UnicodeError) as error:
        raise LinkError(str(error), side=Side.OURS) from None
    addresses = dict.fromkeys(ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found)
    if not addresses:
        raise NameNotFound("no address", side=Side.EXTERNAL)
    return tuple(addresses)[:ADDRESSES_MAX]


def system_lookup_back(address: str) -> tuple[str, ...]:
    """Ask the system for an address's names; blocks. Raises NameNotFound or LinkError."""
    try:
        name, aliases, _ = socket.gethostbyaddr(address)
    except socket.herror as error:
        raise NameNotFound(error.strerror or "", side=Side.EXTERNAL) from None
    except (OSError, UnicodeError) as error:
        raise LinkError(str(error), side=Side.OURS) from None
    return tuple(dict.fromkeys((name, *aliases)))[:ADDRESSES_MAX]
