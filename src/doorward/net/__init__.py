"""Sockets: listen, legs, dial, resolve, relay. The one seam where the system's errors become ours."""
