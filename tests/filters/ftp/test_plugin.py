"""The application filter joins control connections and gives each the settings of its rule."""

from __future__ import annotations

import pytest

from doorward.api import Priority
from doorward.filters.ftp import FtpFilter
from doorward.filters.ftp.control import FtpControl
from doorward.filters.ftp.settings import FtpSettings
from doorward.testing import FilterHarness

pytestmark = pytest.mark.anyio


async def test_it_attaches_nearest_to_the_client_with_its_settings() -> None:
    asked = await FilterHarness(port=21).ask(FtpFilter({"read_only": True}))
    [attached] = asked.attached
    assert isinstance(attached, FtpControl)
    assert attached.priority is Priority.NAT
    assert attached.context == FtpSettings(read_only=True)


def test_bad_settings_refuse_the_policy() -> None:
    with pytest.raises(ValueError, match="unknown setting"):
        FtpFilter({"readonly": True})
    with pytest.raises(ValueError, match="unknown setting"):
        FtpFilter().compile_settings({"readonly": True})


def test_settings_of_a_rule_are_compiled_and_equal_ones_are_equal() -> None:
    plugin = FtpFilter()
    assert plugin.compile_settings({"read_only": True}) == plugin.compile_settings({"read_only": True})
    assert plugin.compile_settings({}) == FtpSettings()


def test_it_cannot_be_gone_on_without() -> None:
    assert FtpFilter.defines_protocol
