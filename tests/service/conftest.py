"""Fixtures for tests of service/: an engine, for what filters open, and both ways in."""

from __future__ import annotations

from tests.engine.conftest import make_rig
from tests.entry.conftest import way_in

__all__ = ["make_rig", "way_in"]
