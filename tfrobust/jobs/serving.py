"""The job that serves a run's SavedModel over HTTP, with a page to try it on."""

from __future__ import annotations

import gc
import signal
import socket
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.progress import Tell, silent

if TYPE_CHECKING:
    from uvicorn import Config, Server

    from tfrobust.serving.model import ServedModel

# Seconds for open requests to finish when the server is stopped.
GRACE = 20
# The most open connections; further ones get 503 before their bodies are read.
CONNECTIONS = 512


def serve(
    model: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    max_batch: int = 32,
    max_body: int = 16,
    queue: int = 512,
    tell: Tell = silent,
) -> int:
    """Loads a model, warms it up, and serves until the process is stopped.

    Args:
      model: run folder, or the folder of a SavedModel.
      host: address to listen at; 0.0.0.0 for all.
      port: to listen at; 0 takes a free one.
      max_batch: images that run together.
      max_body: the largest request, in megabytes.
      queue: images that may wait.
      tell: takes the address once the server is ready, and a last line.

    Returns:
      How many requests were cut off without an answer.

    Raises:
      UsageError: a limit or the port is none.
      TFRobustError: there is no such model, a package is missing, or the port is taken.
    """
    check_limits(port, max_batch=max_batch, max_body=max_body, queue=queue)
    uvicorn = require_packages()
    from tfrobust.runtime import import_quietly

    import_quietly()
    from tfrobust.serving.app import make_app
    from tfrobust.serving.connections import impatient
    from tfrobust.serving.limits import Limits
    from tfrobust.serving.model import ServedModel

    served = ServedModel(Path(model))
    bound = _bound(host, port)
    limits = Limits(body=max_body * 2**20, batch=max_batch, queue=queue)
    app = make_app(served, limits)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=impatient(limits.seconds),
        log_level="warning",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE,
        limit_concurrency=CONNECTIONS,
    )
    # After it has stopped, uvicorn raises the signal again that stopped it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # What is loaded stays: a large request must not have Python look through all of it again.
    gc.freeze()
    _server(uvicorn, config, served, bound, tell).run(sockets=[bound])
    tell(_farewell(app.state.cut_off))
    return int(app.state.cut_off)


def _server(
    uvicorn: ModuleType, config: Config, served: ServedModel, bound: socket.socket, tell: Tell
) -> Server:
    address, number = bound.getsockname()[:2]

    class Announced(uvicorn.Server):  # type: ignore[name-defined]
        """Prints its address once it is ready."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            classes = len(served.label_names)
            tell(
                f"Serving {served.name} version {served.version} ({classes} classes) at "
                f"http://{address}:{number}/ ; Ctrl+C stops it."
            )

    return Announced(config)


def check_limits(port: int, **limits: int) -> None:
    """Rejects an invalid port or limit.

    Raises:
      UsageError: it is none.
    """
    for name, limit in limits.items():
        if limit < 1:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag}: expected at least 1, found {limit}.")
    if not 0 <= port <= 65535:
        raise UsageError(f"--port: expected 0 to 65535, found {port}.")


def _farewell(cut_off: int) -> str:
    if not cut_off:
        return "Stopped: all requests that had come were answered."
    return f"Stopped: requests that were cut off without an answer: {cut_off}."


def require_packages() -> ModuleType:
    """uvicorn, where all that serving needs is installed.

    Raises:
      TFRobustError: a package is not.
    """
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise TFRobustError(
            f"Serving needs the package {error.name}: pip install 'tfrobust[serve]' "
            "-c constraints.txt."
        ) from error
    return uvicorn


def take_port(host: str, port: int) -> int:
    """A socket that listens at a port, or at a free one for 0.

    Raises:
      TFRobustError: it is taken.
    """
    with _bound(host, port) as found:
        return int(found.getsockname()[1])


def _bound(host: str, port: int) -> socket.socket:
    # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named: 40 ms.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise TFRobustError(
            f"{host}:{port} cannot be listened at ({error.strerror}): choose another "
            "--port, or 0 for a free one."
        ) from error
    return found
