"""Which relay: the native one where its package is installed and of our version, else the one in Python."""

from __future__ import annotations

from doorward.net import native_relay
from doorward.net.native_relay import NativeRelay
from doorward.net.poller import Poller
from doorward.net.python_relay import PythonRelay
from doorward.net.relay import OnCompletions, Relay


def make_relay(poller: Poller, on_completions: OnCompletions, *, allow_native: bool = True) -> Relay:
    """The fastest relay there is; its `name` says which, and belongs into the start-up line.

    Raises OSError when there is a native one and it cannot start: descriptors or threads have run out.
    """
    if allow_native and native_relay.is_available():
        return NativeRelay(poller, on_completions)
    return PythonRelay(poller, on_completions)
