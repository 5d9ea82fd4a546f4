from __future__ import annotations

import msgspec
import pytest

from doorward.config.texts import Label, UserName


@pytest.mark.parametrize(
    "name", ["kim", "kim@example.org", "a" * 255, "\\", "DOMAIN\\kim", "!#$%&()*+,-.;<=>?@[]^_`{|}~"]
)
def test_user_names_may_be_what_proxies_can_carry(name: str) -> None:
    assert msgspec.convert(name, UserName) == name


@pytest.mark.parametrize("name", ["", "a" * 256, "a:b", "a b", "a/b", 'a"b', "a'b", "é", "a\n", "a\x00"])
def test_user_names_that_a_proxy_or_a_log_would_garble_are_refused(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, UserName)


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a:b", "a\n", "é"])
def test_labels_are_plain_words(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, Label)
