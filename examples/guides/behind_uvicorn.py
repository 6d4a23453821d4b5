"""The pool behind another ASGI server: uvicorn does the HTTP, the workers run the app.

uvicorn behind_uvicorn:app --app-dir examples/guides
curl http://127.0.0.1:8000/
"""

from __future__ import annotations

from pathlib import Path

from subpool import Pool

# The server's lifespan opens and closes the pool.
app = Pool("asgi_hello:app", workers=2, pythonpath=[Path(__file__).parent]).asgi()
