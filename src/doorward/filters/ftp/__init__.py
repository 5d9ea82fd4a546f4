"""The FTP access filter: reads the control connection and opens exactly the holes that its transfers need.

    plugin      the application filter: joins control connections
    settings    what a rule may say
    words       verbs, and what the filter answers in place of the server
    dialogue    which reply belongs to which command, and in which order the client hears them
    holes       promises for data connections
    control     the data filter: carries the control connection

Data connections are not read: they go to the relay. Rules: RFC 959, RFC 1123 section 4.1, RFC 2428, RFC 4217; what
it refuses and why: RFC 2577. docs/ftp.md is for operators.
"""

from doorward.filters.ftp.plugin import FtpFilter

__all__ = ["FtpFilter"]
