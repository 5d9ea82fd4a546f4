"""The addresses of a captured program's namespace, and the port on which what it sends is caught."""

from __future__ import annotations

from typing import Final

# What the program sees as its own address. RFC 7600 sets 192.0.0.8 aside as an address that nobody has; the other
# one is of a unique local prefix drawn at random (RFC 4193).
OWN: Final = {4: "192.0.0.8", 6: "fdf4:1d5c:9a3e::1"}
# Programs without rights cannot bind a port as low, so nobody's server stands in the way.
PORT: Final = 1
