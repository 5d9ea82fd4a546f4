"""The fastest relay there is, and it can be told apart."""

from __future__ import annotations

import pytest

from doorward.net import native_relay
from doorward.net.poller import Poller
from doorward.net.python_relay import PythonRelay
from doorward.net.relay import Completion, Relay
from doorward.net.relay_choice import make_relay

pytestmark = pytest.mark.anyio


def _ignore(completions: list[Completion]) -> None:
    pass


def _name_and_close(relay: Relay) -> str:
    relay.close()
    return relay.name


@pytest.mark.skipif(not native_relay.is_available(), reason="doorward_native is not built: make native")
async def test_the_native_one_is_taken_where_it_is_built(poller: Poller) -> None:
    assert _name_and_close(make_relay(poller, _ignore)) == "native"


async def test_without_a_native_one_it_is_python(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_relay, "native", None)
    assert _name_and_close(make_relay(poller, _ignore)) == "python"


async def test_python_can_be_asked_for(poller: Poller) -> None:
    relay = make_relay(poller, _ignore, allow_native=False)
    assert isinstance(relay, PythonRelay)
    relay.close()
