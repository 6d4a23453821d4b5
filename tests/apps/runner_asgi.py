"""A custom ASGI runner: changes the scope before, and the answer after, the default handler."""

from subpool.runners import default_asgi_handler


async def run_asgi(app, scope, body):
    scope["state"]["custom_key"] = "value"
    status, headers, body = await default_asgi_handler(app, scope, body.upper())
    return status, [*headers, (b"x-runner", b"yes")], b"<" + body + b">"
