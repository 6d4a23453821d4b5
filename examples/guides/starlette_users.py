"""A Starlette app: JSON, path parameters with types, a mounted part, an error handler.

subpool serve starlette_users:app --pythonpath examples/guides
curl http://127.0.0.1:8000/users/1
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

USERS = {1: "Ada", 2: "Grace"}


async def homepage(request: Request) -> JSONResponse:
    """The way to the users."""
    return JSONResponse({"users": str(request.url_for("users:list"))})


async def users(request: Request) -> JSONResponse:
    """All of them, or those whose name begins as asked."""
    start = request.query_params.get("start", "")
    return JSONResponse([{"id": key, "name": name} for key, name in USERS.items() if name.startswith(start)])


async def user(request: Request) -> JSONResponse:
    """One of them."""
    user_id = request.path_params["user_id"]
    if user_id not in USERS:
        raise HTTPException(404, f"no user {user_id}")
    return JSONResponse({"id": user_id, "name": USERS[user_id]})


async def http_error(request: Request, error: Exception) -> JSONResponse:
    """HTTP errors as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


app = Starlette(
    routes=[
        Route("/", homepage),
        Mount("/users", routes=[Route("/", users, name="list"), Route("/{user_id:int}", user)], name="users"),
    ],
    exception_handlers={HTTPException: http_error},
)
