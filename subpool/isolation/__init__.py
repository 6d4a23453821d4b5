"""Isolation kinds: how a worker is started, watched, interrupted and ended. One file each, loaded by name."""

from __future__ import annotations

from .base import Handle, Kind, load

__all__ = ["Handle", "Kind", "load"]
