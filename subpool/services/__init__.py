"""The host's services for the code in its workers: functions by name, and publish/subscribe. Loaded when first used.

    a worker:  functions.call -> frame ASK  -> desk (of that worker) -> services.ask
    services:  a plain function -> helper (a pool of one process) -> asked.answer -> frame ANSWER
               an async or inline one -> onloop

    a worker:  pubsub.publish -> frame PUBLISH -> desk -> hub.publish -> each worker's feed -> frame NEWS
                                                            -> bus (Redis, where one is configured)

What belongs to a worker ends with it (`desk.leave`). A server's pools share one `Services`.
"""

from __future__ import annotations

from .services import Services

__all__ = ["Services"]
