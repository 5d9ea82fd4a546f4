"""How much one mapping may carry: bytes in each direction in all, and bytes a second. What is too fast is dropped."""

from __future__ import annotations

from doorward.api.errors import ByteLimitReached, Side
from doorward.net.allowance import Allowance


class Quota:
    """Both directions, each by itself. 0 is no limit."""

    __slots__ = ("_allowances", "_bytes_max", "_moved", "limited")

    def __init__(self, bytes_max: int, bytes_per_second: int, now: float) -> None:
        self._bytes_max = bytes_max
        self._moved = [0, 0]
        self._allowances = [Allowance(bytes_per_second, now) for _ in range(2)] if bytes_per_second else []
        self.limited = bool(bytes_max or bytes_per_second)

    def take(self, size: int, now: float, *, outward: bool) -> bool:
        """Whether so many bytes may pass now. Raises ByteLimitReached when there is no more to come."""
        if not self.limited:
            return True
        if self._bytes_max and self._moved[outward] + size > self._bytes_max:
            raise ByteLimitReached(f"over {self._bytes_max} bytes in one direction", side=Side.OURS)
        if self._allowances:
            allowance = self._allowances[outward]
            if not allowance.available(now):
                return False
            allowance.spend(size)
        self._moved[outward] += size
        return True
