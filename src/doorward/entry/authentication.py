"""Who is it: names and passwords against the policy's users.

A password hash is made to be slow, so it is checked in a thread, few at a time, and a success is remembered for
some minutes under a keyed digest. Otherwise every HTTP request would cost 50 ms, and guessing would be a way to
stop the firewall.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from doorward.api.errors import OutOfResources, Side
from doorward.config.model import User
from doorward.config.passwords import hash_password, verify_password
from doorward.wire.credentials import Credentials

THREADS: Final = 2
REMEMBERED_S: Final = 300.0
REMEMBERED_MAX: Final = 10_000
# Checks that may wait: in all, and for one client address.
WAITING_MAX: Final = 64
WAITING_PER_CLIENT_MAX: Final = 4

Verify = Callable[[str, str], bool]


class Authenticator:
    """Checks credentials. `replace` swaps the users at a reload and forgets what was remembered."""

    def __init__(
        self, users: Mapping[str, User], clock: Callable[[], float], verify: Verify = verify_password
    ) -> None:
        self._users = users
        self._clock = clock
        self._verify = verify
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._nobody = ""

    def replace(self, users: Mapping[str, User]) -> None:
        """From now on these users."""
        self._users = users
        self._remembered.clear()

    async def identify(self, credentials: Credentials, client_address: str) -> User | None:
        """The user, or None if name and password do not fit. Raises OutOfResources when too many are waiting."""
        users = self._users
        user = users.get(credentials.username)
        digest = self._digest(credentials)
        if user is not None and self._remembered.get(digest, 0.0) > self._clock():
            return user
        if self._waiting.total() >= WAITING_MAX or self._waiting[client_address] >= WAITING_PER_CLIENT_MAX:
            raise OutOfResources("too many logins are being checked", side=Side.INTERNAL)
        self._waiting[client_address] += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._check, user, credentials.password
            )
        finally:
            self._waiting[client_address] -= 1
            if not self._waiting[client_address]:
                del self._waiting[client_address]
        if user is None or not right:
            return None
        if users is self._users:  # a reload meanwhile has its own opinion
            self._remember(digest)
        return user

    def close(self) -> None:
        """Give up on what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, user: User | None, password: str) -> bool:
        """Runs in a thread. An unknown name takes as long as a wrong password, so that names cannot be guessed."""
        if user is not None:
            return self._verify(user.password, password)
        self._nobody = self._nobody or hash_password(secrets.token_hex())
        self._verify(self._nobody, password)
        return False

    def _digest(self, credentials: Credentials) -> bytes:
        text = f"{credentials.username}\0{credentials.password}".encode()
        return hmac.digest(self._key, text, hashlib.sha256)

    def _remember(self, digest: bytes) -> None:
        self._remembered[digest] = self._clock() + REMEMBERED_S
        self._remembered.move_to_end(digest)
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
