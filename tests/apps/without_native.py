"""An app that uses an extension module where it can be had, and does without it elsewhere."""

try:
    import pydantic_core
except ImportError:
    pydantic_core = None


async def app(scope, receive, send):
    raise RuntimeError("never called")
