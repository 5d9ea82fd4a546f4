"""What any relay must do, whoever wrote it: see `doorward.net.relay`. Only that border is used.

Subclass `RelayContract` in a test module that has a fixture `make_relay`.
"""

from __future__ import annotations

from tests.net.relay_bytes import BytesContract, PressureContract
from tests.net.relay_ends import EndsContract
from tests.net.relay_life import LifeContract, LimitsContract
from tests.net.relay_reclaim import ReclaimContract
from tests.net.relay_schedules import SchedulesContract
from tests.net.relay_weather import WeatherContract


class RelayContract(
    BytesContract,
    PressureContract,
    EndsContract,
    LimitsContract,
    LifeContract,
    ReclaimContract,
    SchedulesContract,
    WeatherContract,
):
    """All of it."""
