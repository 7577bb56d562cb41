"""In Ray Serve's proxies: what a replica took with it when it died is asked of another one.

A proxy gives a request to one replica, once. Answers here depend on the request alone, so that
it does no harm to ask twice. Ray Serve's own way in for what goes around a proxy's server is
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, which `settings` has name `middlewares`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tfrobust.serving.gate import Busy, Gate

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: How often a request goes to a replica: it may be what kills them.
TRIES = 3
# Seconds for all tries of a request, and between two.
_PATIENCE, _PAUSE = 60.0, 0.1
# Bytes of all bodies that are kept for another try.
_HELD = 512 * 2**20


class Again:
    """An ASGI application around a proxy's, which hands on whole answers alone.

    Guarantees: a request that came whole gets an answer of a replica, or 503 in JSON after
    `TRIES` replicas died of it or a minute went by; a client that has gone away is not asked for
    again.

    Args:
      app: the proxy's; it returns without an answer, or with half of one, when a replica dies.
      held: bytes of all bodies that are kept; a request beyond is told 503.
    """

    def __init__(self, app: App, held: int = _HELD) -> None:
        self._app, self._bodies = app, Gate(held)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(receive, self._bodies)
        try:
            answer = await self._answer(scope, request)
        finally:
            request.let_go()
        for message in answer:
            await send(message)

    async def _answer(self, scope: MutableMapping[str, Any], request: _Request) -> list[Message]:
        """The messages of an answer; none for a client that has gone away."""
        end, died = time.monotonic() + _PATIENCE, 0
        while True:
            answer = await self._tried(scope, request)
            # Once a replica has died the others may be too many for: this one has its turn.
            if _is_whole(answer) and not (died and answer[0]["status"] == 503):
                return answer
            if request.gone or request.too_much:
                return _told("The server is busy: try again.") if request.too_much else []
            died += not _is_whole(answer)
            if died >= TRIES or time.monotonic() > end:
                return _told("No replica has answered: try again in a second.")
            logging.getLogger(__name__).warning("%s is asked of another replica", scope["path"])
            await asyncio.sleep(_PAUSE)

    async def _tried(self, scope: MutableMapping[str, Any], request: _Request) -> list[Message]:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        # What is around the proxy writes its own headers into it.
        own = {**scope, "headers": list(scope["headers"])}
        await self._app(own, request.from_the_start(), keep)
        return answer


class _Request:
    """What came of a request, to be read more than once.

    Attributes:
      gone: whether the client has gone away.
      too_much: whether it does not fit beside the other ones.
    """

    def __init__(self, receive: Receive, bodies: Gate) -> None:
        self._receive, self._bodies = receive, bodies
        self._kept: list[Message] = []
        self._size = 0
        self.gone = self.too_much = False

    def from_the_start(self) -> Receive:
        """What `receive` gives and has given."""
        at = 0

        async def receive() -> Message:
            nonlocal at
            if at == len(self._kept):
                await self._more()
            message = self._kept[at]
            at += 1
            return message

        return receive

    async def _more(self) -> None:
        message = await self._receive()
        size = len(message.get("body", b""))
        try:
            self._bodies.take(size)
        except Busy:
            self.too_much = True
        else:
            self._size += size
        self.gone = message["type"] == "http.disconnect"
        # To the replica that reads it, a client that sends too much goes away.
        self._kept.append({"type": "http.disconnect"} if self.too_much else message)

    def let_go(self) -> None:
        """The request is over."""
        self._bodies.give(self._size)
        self._size, self._kept = 0, []


def _is_whole(answer: list[Message]) -> bool:
    return len(answer) > 1 and not answer[-1].get("more_body", False)


def _told(sentence: str) -> list[Message]:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1"),
               (b"content-length", str(len(body)).encode())]  # fmt: skip
    return [{"type": "http.response.start", "status": 503, "headers": headers},
            {"type": "http.response.body", "body": body}]  # fmt: skip


def middlewares() -> list[Any]:
    """For Ray Serve, which calls it in each proxy."""
    from starlette.middleware import Middleware

    return [Middleware(Again)]


def settings() -> dict[str, Any]:
    """The options of Ray Serve's controller with which its proxies ask again."""
    path = f"{__name__}:{middlewares.__name__}"
    return {"runtime_env": {"env_vars": {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": path}}}
