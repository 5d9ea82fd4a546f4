"""Doorward's relay in native code. `doorward.net.native_relay`, `native_datagrams` and `front` are what uses it; nobody
else should.

It knows no policy, no protocol, no session, and nothing of Doorward's Python. The border is in `_relay.pyi`.
"""

from doorward_native._relay import BORDER_VERSION, Datagrams, Front, Relay, __version__

__all__ = ["BORDER_VERSION", "Datagrams", "Front", "Relay", "__version__"]
