"""A real server on a free port, with a small model exported as any run's is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="serving needs the extra 'serve'")

NAMES = ("red", "green", "blue")
SIDE = 16


@dataclass
class Client:
    """Asks the server."""

    address: str

    def ask(self, path: str, body: Any = None, timeout: float = 30) -> tuple[int, Any]:
        """(status, answer): JSON where it is some."""
        request = urllib.request.Request(self.address + path, data=body)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()


@contextlib.contextmanager
def running(folder: Path, **limits: Any) -> Iterator[Client]:
    """The server in a thread, until the block ends."""
    from tfrobust.serving.app import Limits, make_app
    from tfrobust.serving.model import ServedModel

    app = make_app(ServedModel(folder), Limits(**limits))
    config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=20)
    server, found = uvicorn.Server(config), socket.socket()
    found.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([found])))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
        yield Client(f"http://127.0.0.1:{found.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
