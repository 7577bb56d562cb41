"""Serves a run's SavedModel over HTTP, with a page to try it on.

python -m pipelines.serve saved_models/RUN --port 8080
"""

from __future__ import annotations

import argparse
import gc
import signal
import socket
from pathlib import Path
from typing import Any

from pipelines.cli import main_of, new_parser, warn_of_guessing
from tfrobust.errors import TFRobustError, UsageError

# Seconds that open requests have to end in when the server is told to stop.
GRACE = 20
# Connections that may be open; one more is told 503 before its body is read.
CONNECTIONS = 512


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.serve`."""
    parser = new_parser(
        "serve", "Serve a SavedModel over HTTP; for those without TensorFlow Serving."
    )
    add = parser.add_argument
    add("model", metavar="RUN_OR_SAVEDMODEL", help="run folder, or the folder of a SavedModel")
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all")
    add("--port", type=int, default=8080, help="port to listen at; 0 takes a free one")
    add("--max-batch", type=int, default=32, help="images that run together")
    add("--max-body", type=int, default=16, metavar="MB", help="the most that a request may hold")
    add("--queue", type=int, default=512, help="images that may wait; more are told to come again")
    return parser


def work(args: argparse.Namespace) -> None:
    """Loads the model, warms it up, and serves until it is told to stop."""
    _check(args)
    uvicorn = _uvicorn()
    from tfrobust.runtime import import_quietly

    import_quietly()
    from tfrobust.serving.app import make_app
    from tfrobust.serving.limits import Limits
    from tfrobust.serving.model import ServedModel

    model = ServedModel(Path(args.model))
    warn_of_guessing(args.model)
    bound = _bound(args)
    limits = Limits(body=args.max_body * 2**20, batch=args.max_batch, queue=args.queue)
    app = make_app(model, limits)
    config = uvicorn.Config(
        app, host=args.host, port=args.port, log_level="warning", timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE, limit_concurrency=CONNECTIONS,
    )  # fmt: skip
    host, port = bound.getsockname()[:2]

    class Server(uvicorn.Server):  # type: ignore[name-defined]
        """Says that it is there once it is."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            classes = len(model.label_names)
            print(f"Serving {model.name} version {model.version} ({classes} classes) at "
                  f"http://{host}:{port}/ ; Ctrl+C stops it.", flush=True)  # fmt: skip

    # When it has stopped, uvicorn raises the signal again that stopped it: to be told and no more.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # What is loaded stays: a large request must not have Python look through all of it again.
    gc.freeze()
    Server(config).run(sockets=[bound])
    print(_farewell(app.state.cut_off), flush=True)


def _check(args: argparse.Namespace) -> None:
    for name in ("max_batch", "max_body", "queue"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag}: expected at least 1, found {getattr(args, name)}.")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port: expected 0 to 65535, found {args.port}.")


def _farewell(cut_off: int) -> str:
    if not cut_off:
        return "Stopped: all requests that had come were answered."
    return f"Stopped: requests that were cut off without an answer: {cut_off}."


def _uvicorn() -> Any:
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


def _bound(args: argparse.Namespace) -> socket.socket:
    # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named: 40 ms.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((args.host, args.port))
    except OSError as error:
        found.close()
        raise TFRobustError(
            f"{args.host}:{args.port} cannot be listened at ({error.strerror}): choose another "
            "--port, or 0 for a free one."
        ) from error
    return found


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
