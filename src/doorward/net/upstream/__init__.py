"""Going out through other firewalls: the talk with each (`hop`), one behind another (`chain`), how they fare
(`health`), and which of them a connection takes (`ways`).

What may be reached was judged before; nothing here allows anything. A connection whose route names upstreams goes
through one of them or not at all: direct only where the policy says so.
"""
