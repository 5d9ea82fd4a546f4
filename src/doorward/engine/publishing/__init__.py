"""Servers inside that others may reach: who may come, to which machine they are led, and how the machines fare."""
