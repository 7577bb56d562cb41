"""Connections that bring no request are ended: those that are open are limited."""

from __future__ import annotations

import asyncio
from typing import Any


def impatient(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which ends a connection on which the head of a request is late.

    uvicorn waits for ever for the first one. What takes its time after the head is the
    application's to end; what says nothing after an answer is uvicorn's (`timeout_keep_alive`).

    Args:
      seconds: from the connection's begin, or the first bytes after an answer, to a whole head.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._late = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            under_way = self.cycle is not None and not self.cycle.response_complete
            if under_way:
                self._forget()
            elif self._late is None:
                self._late = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _forget(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Impatient
