"""What a stream is opened for: an app's request, a WebSocket, or an answer of our own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .h2_call import H2Call
from .h2_headers import Familiar, Malformed, Refused, Request, parse

if TYPE_CHECKING:
    from .front import Front
    from .h2_stream import Stream


def opened(stream: Stream, pairs: Any) -> Callable[[], None]:
    """Give the stream its user, by the header list of its request; to be called when the stream is known. `Malformed`
    if there is none."""
    front = stream.connection.front
    familiar = front.familiar
    if familiar is None:
        familiar = front.familiar = Familiar()
        front.h2_call = _call_type(front)
    request = familiar.find(pairs)
    refused = None
    if request is None:
        request = Request()
        try:
            parse(pairs, request, front.config)
            familiar.learn(pairs, request)
        except Refused as error:
            refused = error
    if stream.complete and request.length:
        raise Malformed("there is no body")
    number = next(front.ids)
    if refused is not None:
        return partial(H2Call(number, stream, request).answer, refused.status, refused.text)
    if request.protocol is None:
        return front.h2_call(number, stream, request).begin
    if request.protocol != b"websocket":
        return partial(H2Call(number, stream, request).answer, 501, "only WebSocket is known here")
    from .h2_websocket import H2WebSocket

    return H2WebSocket(number, stream, request).begin


def _call_type(front: Front) -> type[H2Call]:
    """What requests are: with hooks they go another way, so that without them they pay nothing."""
    if not front.hooked:
        return H2Call
    from .h2_hooked import HookedH2Call

    return HookedH2Call
