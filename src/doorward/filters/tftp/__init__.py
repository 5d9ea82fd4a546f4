"""The TFTP access filter: reads requests, and lets the server answer each from the port that it has chosen for it.

    plugin      the application filter: joins destinations at port 69, and what rules may say
    requests    the data filter: judges requests, carries what goes over port 69 itself
    answers     promises for the servers' answers

Transfers are not read: they pass from socket to socket. Rules: RFC 1350 (section 4 for the ports), RFC 2347.
docs/tftp.md is for operators.
"""

from doorward.filters.tftp.plugin import TftpFilter

__all__ = ["TftpFilter"]
