"""Doorward's relay in native code. `doorward.net.native_relay` is what uses it; nobody else should.

It knows no policy, no protocol, no session, and nothing of Doorward's Python. The border is in `_relay.pyi`.
"""

from doorward_native._relay import BORDER_VERSION, Relay, __version__

__all__ = ["BORDER_VERSION", "Relay", "__version__"]
