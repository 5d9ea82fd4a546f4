"""Doorward: a programmable application-layer firewall for Linux.

Filter authors import from `doorward.api`; everything else is the machinery behind it.
"""

__version__ = "0.1.0"
