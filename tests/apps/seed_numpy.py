"""An app that loads numpy in its workers, as the guides do."""

from __future__ import annotations

from typing import Any

import numpy as np


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [str(int(np.arange(10).sum())).encode()]
