"""HTTP proxying: CONNECT tunnels, and plain requests forwarded one by one."""

from doorward.entry.http.server import HttpServer

__all__ = ["HttpServer"]
