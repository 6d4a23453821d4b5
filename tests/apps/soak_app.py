"""What the soak loads: the routes of the other tests' apps, without their journals, which would grow."""

import http_app
import http_wsgi
import ws_app


async def asgi(scope, receive, send):
    """HTTP and WebSocket."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    if scope["type"] == "websocket":
        return await ws_app.app(scope, receive, send)
    await http_app.HTTP[scope["path"]](scope, receive, send)


def wsgi(environ, start_response):
    return http_wsgi.ROUTES[environ["PATH_INFO"]](environ, start_response)
