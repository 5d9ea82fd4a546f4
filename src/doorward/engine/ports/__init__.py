"""Ports that are open on clients' behalf: who opens them, who may come, where those who come are led."""
