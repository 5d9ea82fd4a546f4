"""How the proxies that Doorward is compared with are set up: each as its users would, with what suits it best.

Every function writes a configuration into the proxy's directory and returns the arguments that start it in the
foreground. Time limits are long enough for idle tunnels to stay; everything else that is not said is the default.
"""

from __future__ import annotations

import getpass
import os
import shutil
from collections.abc import Callable

from bench.ours import SEARCHED
from bench.peer import Place

NGINX_STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
CONNECTIONS_MAX = 4096  # two descriptors each and pipes besides, and many systems stop at 20,000

_SEARCH = f"""
import re

SEARCHED = re.compile(rb"{SEARCHED}")


class Search:
    def tcp_message(self, flow):
        if SEARCHED.search(flow.messages[-1].content):
            flow.kill()


addons = [Search()]
"""


_SEARCH_AND_FORGET = _SEARCH.replace("\n\n\naddons", "\n        flow.messages.clear()\n\n\naddons")


def dante(place: Place) -> list[str]:
    # Dante changes to these users on its way; only root may name others than itself.
    root = os.geteuid() == 0
    privileged, unprivileged = ("root", "nobody") if root else (getpass.getuser(), getpass.getuser())
    configuration = place.directory / "danted.conf"
    rule = "{ from: 0.0.0.0/0 to: 0.0.0.0/0 log: connect disconnect error }"
    configuration.write_text(
        f"""logoutput: {place.directory / "danted.log"}
internal: 127.0.0.1 port = {place.port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: {privileged}
user.unprivileged: {unprivileged}
client pass {rule}
socks pass {rule}
"""
    )
    return ["-f", str(configuration)]


def haproxy(*, splice: bool, tuning: str = "", threads: int = 1) -> Callable[[Place], list[str]]:
    """TCP mode. `splice-request` and `splice-response`, since `splice-auto` was found to cost what copying costs."""

    def prepare(place: Place) -> list[str]:
        configuration = place.directory / "haproxy.cfg"
        options = "  option splice-request\n  option splice-response\n" if splice else ""
        configuration.write_text(
            f"""global
  maxconn {CONNECTIONS_MAX}
  nbthread {threads}
  {tuning}
defaults
  mode tcp
  timeout connect 10s
  timeout client 10m
  timeout server 10m
{options}
listen bench
  bind 127.0.0.1:{place.port} backlog 4096
  server load 127.0.0.1:{place.server_port}
"""
        )
        return ["-db", "-f", str(configuration)]

    return prepare


def nginx(place: Place) -> list[str]:
    configuration = place.directory / "nginx.conf"
    configuration.write_text(
        f"""load_module {NGINX_STREAM_MODULE};
daemon off;
pid {place.directory / "nginx.pid"};
error_log {place.directory / "error.log"};
worker_processes 1;
worker_rlimit_nofile {2 * CONNECTIONS_MAX + 64};
events {{ worker_connections {2 * CONNECTIONS_MAX}; }}
stream {{
  proxy_timeout 10m;
  server {{
    listen 127.0.0.1:{place.port} backlog=4096;
    proxy_pass 127.0.0.1:{place.server_port};
  }}
}}
"""
    )
    return ["-p", str(place.directory), "-c", str(configuration), "-e", "stderr"]


def microsocks(place: Place) -> list[str]:
    return ["-i", "127.0.0.1", "-p", str(place.port)]


def squid(place: Place) -> list[str]:
    log = place.directory / "log"
    log.mkdir()
    if os.geteuid() == 0:  # squid becomes nobody then, and writes its log as that
        shutil.chown(log, "nobody")
        place.directory.chmod(0o711)
        place.directory.parent.chmod(0o711)
    configuration = place.directory / "squid.conf"
    configuration.write_text(
        f"""http_port 127.0.0.1:{place.port}
acl load_ports port 1-65535
http_access allow CONNECT load_ports
http_access deny all
access_log daemon:{log}/access.log squid
cache_log {log}/cache.log
pid_filename {log}/squid.pid
coredump_dir {log}
cache_effective_user nobody
cache deny all
cache_mem 8 MB
max_filedescriptors {2 * CONNECTIONS_MAX + 64}
pinger_enable off
shutdown_lifetime 0 seconds
"""
    )
    return ["-N", "-f", str(configuration)]


def pproxy(place: Place) -> list[str]:
    return ["-l", f"socks5://127.0.0.1:{place.port}"]


def proxy_py(place: Place) -> list[str]:
    return [
        *("--hostname", "127.0.0.1", "--port", str(place.port), "--backlog", "1024", "--timeout", "600"),
        *("--open-file-limit", str(2 * CONNECTIONS_MAX), "--data-dir", str(place.directory / "data")),
        *("--log-file", str(place.directory / "access.log")),
    ]


def mitmproxy_search(*, forgets: bool) -> Callable[[Place], list[str]]:
    """An addon that searches each chunk. mitmproxy keeps all of a stream in memory unless an addon throws it away."""
    return mitmproxy("socks5", addon=_SEARCH_AND_FORGET if forgets else _SEARCH)


def mitmproxy(mode: str, *, unread: bool = False, addon: str = "") -> Callable[[Place], list[str]]:
    def prepare(place: Place) -> list[str]:
        path = place.directory / "addon.py"
        path.write_text(addon)
        return [
            *("-q", "--mode", mode, "--listen-host", "127.0.0.1", "--listen-port", str(place.port)),
            *("--set", f"confdir={place.directory}", "--ignore-hosts" if unread else "--tcp-hosts", ".*"),
            *(("-s", str(path)) if addon else ()),
        ]

    return prepare
