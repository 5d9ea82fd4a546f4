from __future__ import annotations

import pytest

from doorward.api import EventKind
from doorward.filters.tftp import TftpFilter
from doorward.filters.tftp.plugin import read_settings
from doorward.filters.tftp.requests import TftpSettings


def test_it_is_concerned_with_tftp_and_defines_it() -> None:
    assert TftpFilter.interest.protocols == ("tftp",)
    assert TftpFilter.interest.events == {EventKind.UDP_DESTINATION}
    assert TftpFilter.defines_protocol


def test_settings_are_read_or_refused_with_a_sentence() -> None:
    assert read_settings({}) == TftpSettings(read_only=False)
    assert TftpFilter().compile_settings({"read_only": True}) == TftpSettings(read_only=True)
    with pytest.raises(ValueError, match='unknown setting "readonly"; known are read_only'):
        read_settings({"readonly": True})
    with pytest.raises(ValueError, match="read_only is true or false"):
        TftpFilter({"read_only": 1})
