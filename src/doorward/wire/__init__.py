"""Byte formats: what protocols look like on the wire, and nothing else.

Everything here is pure: bytes in, values out, and the other way round. No
sockets, no clocks, no policy. Parsers raise only the errors in `errors`.
"""
