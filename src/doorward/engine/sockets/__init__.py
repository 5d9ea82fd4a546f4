"""Sockets that filters make for themselves: TCP, UDP, and TLS over any leg there is."""
