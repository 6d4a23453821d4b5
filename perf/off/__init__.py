"""Optimisations switched off, one a module: a worker that imports it (the option `preload`) does without.

The product has no options for this. What is replaced must be there: a patch that misses its mark raises.
"""

from __future__ import annotations

from typing import Any


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace an attribute that exists."""
    getattr(owner, name)
    setattr(owner, name, value)


class Forgetful(dict[Any, Any]):
    """A cache that keeps nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def move_to_end(self, key: Any) -> None:
        pass
