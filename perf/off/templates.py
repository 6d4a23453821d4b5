"""A worker makes every scope from its packed form, without a template."""

from __future__ import annotations

from typing import Any

from perf.off import Forgetful, replace
from subpool import scope

made = scope.Scopes.__init__


def make(self: scope.Scopes, worker: int, state: dict[str, Any]) -> None:
    made(self, worker, state)
    self._templates = Forgetful()  # type: ignore[assignment]


replace(scope.Scopes, "__init__", make)
