"""A real server on a free port, with a small model exported as any run's is; what it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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
    from tfrobust.serving.model import ServedModel

    with running_of(ServedModel(folder), **limits) as client:
        yield client


@contextlib.contextmanager
def running_of(model: Any, **limits: Any) -> Iterator[Client]:
    """The server of a model in a thread, until the block ends."""
    from tfrobust.serving.app import make_app
    from tfrobust.serving.connections import impatient
    from tfrobust.serving.limits import Limits

    allowed = Limits(**limits)
    config = uvicorn.Config(
        make_app(model, allowed), http=impatient(allowed.seconds), log_level="warning",
        lifespan="on", timeout_graceful_shutdown=20,
    )  # fmt: skip
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


def encoded(colour: tuple[int, int, int], kind: str = "PNG", side: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, kind)
    return file.getvalue()


RED, BLUE = encoded((200, 60, 60)), encoded((60, 60, 200), "JPEG")
REST = "/v1/models/colours:predict"


def rest(*instances: Any, **others: Any) -> bytes:
    return json.dumps({"instances": instances, **others}).encode()


def png_that_claims(width: int, height: int) -> bytes:
    head = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c))
             for k, c in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def until(true: Callable[[], bool]) -> None:
    end = time.perf_counter() + 10
    while not true():
        assert time.perf_counter() < end
        time.sleep(0.01)
