"""What an operator may say about FTP."""

from __future__ import annotations

from typing import Any

import pytest

from doorward.filters.ftp.settings import FtpSettings, read_settings


def test_nothing_said() -> None:
    assert read_settings({}) == FtpSettings(False, False, None, frozenset())


def test_everything_said() -> None:
    assert read_settings({"read_only": True, "commands_denied": ["site", "DELE"]}) == FtpSettings(
        read_only=True, denied=frozenset({"SITE", "DELE"})
    )
    assert read_settings({"tls": "pass", "passive_ports": "50000-50100"}) == FtpSettings(
        passes_tls=True, passive_ports=(50000, 50100)
    )
    assert read_settings({"tls": "refuse", "passive_ports": "50000"}).passive_ports == (50000, 50000)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"readonly": True}, "unknown setting"),
        ({"read_only": "yes"}, "true or false"),
        ({"read_only": 1}, "true or false"),
        ({"tls": True}, '"refuse" or "pass"'),
        ({"tls": "pass", "read_only": True}, "behind TLS"),
        ({"tls": "pass", "commands_denied": ["SITE"]}, "behind TLS"),
        ({"passive_ports": "50100-50000"}, "lower one first"),
        ({"passive_ports": "1023-2000"}, "1024 to 65535"),
        ({"passive_ports": "50000-65536"}, "1024 to 65535"),
        ({"passive_ports": 50000}, "is written"),
        ({"passive_ports": "50000-"}, "is written"),
        ({"commands_denied": "SITE"}, "list of verbs"),
        ({"commands_denied": ["SITE CHMOD"]}, "list of verbs"),
        ({"commands_denied": [1]}, "list of verbs"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_settings(settings)
