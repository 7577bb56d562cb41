"""The HTTP server: batched predictions, explanations, attacks, health, metrics, a page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tfrobust.errors import TFRobustError
from tfrobust.explain.overlay import overlaid
from tfrobust.serving.batcher import Batcher
from tfrobust.serving.decoder import Decoder
from tfrobust.serving.gate import Busy, Gate
from tfrobust.serving.limits import Limits, Refused
from tfrobust.serving.metrics import Metrics
from tfrobust.serving.model import ServedModel, softmax
from tfrobust.serving.rest import parse
from tfrobust.settings import parse_number

Handler = Callable[[Request], Awaitable[Response]]
# The largest radius that the page's attack accepts.
_MOST_EPS = 0.25


def make_app(model: ServedModel, limits: Limits | None = None) -> Starlette:
    """The server as an ASGI application, for uvicorn or any other.

    | | |
    |---|---|
    | GET / | the page |
    | POST /predict | a JPEG or PNG as the body -> the five most probable classes |
    | POST /explain | the same -> the gradient overlaid on the image in red |
    | POST /attack?eps=8/255 | the same -> PGD's adversarial image, and its prediction |
    | POST /v1/models/NAME:predict | TensorFlow Serving's REST row format, base64 or floats |
    | GET /v1/models/NAME, .../metadata | its state and its signatures, in the same format |
    | GET /health, /metrics | readiness; metrics for Prometheus |

    Everything under /v1/models/NAME is also under /v1/models/NAME/versions/N. `app.state.cut_off`
    counts the requests that were aborted before they were answered.
    """
    return _Server(model, limits or Limits()).app


class _Server:
    def __init__(self, model: ServedModel, limits: Limits) -> None:
        self._model, self._limits, self._metrics = model, limits, Metrics()
        self._batcher = Batcher(
            model.logits, max_batch=limits.batch, queue=limits.queue, calls=limits.calls,
            on_batch=self._metrics.batches.observe,
        )  # fmt: skip
        self._decoder = Decoder(model.shape, limits)
        # One at a time: JSON unpacks to many times its size.
        self._parser = ThreadPoolExecutor(1, "parse")
        self._bodies = Gate(16 * limits.body)
        self.app = Starlette(routes=self._routes(), lifespan=self._lifespan)
        self.app.state.cut_off = 0

    def _routes(self) -> list[Route]:
        def post(path: str, handler: Handler) -> Route:
            return Route(path, self._guarded(handler), methods=["POST"])

        routes = [
            Route("/", self._page), Route("/health", self._health),
            Route("/metrics", self._figures), post("/predict", self._predict),
            post("/explain", self._explain), post("/attack", self._attack),
        ]  # fmt: skip
        for path in ("/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
            routes += [
                post(f"{path}:predict", self._rest),
                Route(f"{path}/metadata", self._guarded(self._metadata)),
                Route(path, self._guarded(self._status)),
            ]
        return routes

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._batcher.start()
        yield
        await self._batcher.stop()
        self._parser.shutdown()
        self._decoder.stop()

    def _guarded(self, handler: Handler) -> Handler:
        """Answers every request in JSON, counts and times it."""

        async def run(request: Request) -> Response:
            begin, request.state.held = time.perf_counter(), 0
            try:
                response = await _answered(handler, request)
            except asyncio.CancelledError:
                self.app.state.cut_off += 1
                raise
            finally:
                self._bodies.give(request.state.held)
            self._metrics.seen(handler.__name__[1:], response.status_code, begin)
            return response

        return run

    @property
    def _waiting(self) -> int:
        return self._batcher.waiting + self._decoder.waiting

    async def _page(self, _: Request) -> Response:
        text = files("tfrobust.serving").joinpath("page.html").read_text(encoding="utf-8")
        known = {"name": self._model.name, "version": self._model.version,
                 "classes": len(self._model.label_names), "shape": self._model.shape}  # fmt: skip
        # Escaped so that '<' cannot end the script.
        return HTMLResponse(text.replace("{{model}}", json.dumps(known).replace("<", "\\u003c")))

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ready", "waiting": self._waiting})

    async def _figures(self, _: Request) -> Response:
        self._metrics.waiting.set(self._waiting)
        content, kind = self._metrics.text()
        return Response(content, media_type=kind)

    async def _status(self, request: Request) -> Response:
        self._check_address(request)
        state = {"version": str(self._model.version), "state": "AVAILABLE",
                 "status": {"error_code": "OK", "error_message": ""}}  # fmt: skip
        return JSONResponse({"model_version_status": [state]})

    async def _metadata(self, request: Request) -> Response:
        self._check_address(request)
        spec = {"name": self._model.name, "signature_name": "",
                "version": str(self._model.version)}  # fmt: skip
        signatures = {"signature_def": {"signature_def": self._model.signatures}}
        return JSONResponse({"model_spec": spec, "metadata": signatures})

    def _check_address(self, request: Request) -> None:
        known = {"name": self._model.name, "version": str(self._model.version)}
        if any(known[key] != value for key, value in request.path_params.items()):
            raise Refused(404, f"Served here: only version {known['version']} of {known['name']}.")

    async def _predict(self, request: Request) -> Response:
        [image] = await self._decoder.images([await self._body(request)])
        return JSONResponse({"predictions": self._best(*await self._batcher.submit(image))})

    async def _explain(self, request: Request) -> Response:
        [image] = await self._decoder.images([await self._body(request)])
        [found] = await self._batcher.submit(image)
        gradient = await self._batcher.call(lambda: self._model.saliency(image))

        def answer() -> Response:
            red = overlaid(image[None], gradient[None])[0]
            return JSONResponse({
                "predictions": self._best(found), "image": _as_png(image), "overlay": _as_png(red),
            })  # fmt: skip

        return await self._decoder.in_thread(answer)

    async def _attack(self, request: Request) -> Response:
        eps = _eps(request.query_params.get("eps", "8/255"))
        [image] = await self._decoder.images([await self._body(request)])
        [clean] = await self._batcher.submit(image)
        adversarial = await self._batcher.call(lambda: self._model.attack(image, eps))
        [after] = await self._batcher.submit(adversarial)

        def answer() -> Response:
            moved = np.clip(0.5 + (adversarial - image) / (2 * max(eps, 1e-6)), 0, 1)
            return JSONResponse({
                "eps": eps, "clean": self._best(clean), "image": _as_png(adversarial),
                "adversarial": self._best(after), "difference": _as_png(moved),
            })  # fmt: skip

        return await self._decoder.in_thread(answer)

    async def _rest(self, request: Request) -> Response:
        self._check_address(request)
        body = await self._body(request)
        # More instances than the queue holds would be rejected as busy every time.
        most = min(self._limits.instances, self._limits.queue)
        loop = asyncio.get_running_loop()
        items = await loop.run_in_executor(self._parser, parse, body, self._model.shape, most)
        encoded = [one for one in items if isinstance(one, bytes)]
        decoded = iter(await self._decoder.images(encoded) if encoded else [])
        images = [next(decoded) if isinstance(one, bytes) else one for one in items]
        rows = await self._batcher.submit(*images)
        return JSONResponse({"predictions": [self._row(row) for row in rows]})

    def _row(self, logits: np.ndarray) -> dict[str, Any]:
        """The outputs of the SavedModel for one image."""
        best = self._model.best(logits, 1)[0]
        return {"label": best.label, "label_name": best.name, "logits": logits.tolist(),
                "probabilities": softmax(logits).tolist()}  # fmt: skip

    async def _body(self, request: Request) -> bytes:
        """The request's body, within size and time; its reservation is in the request's state."""
        content = bytearray()

        async def read() -> None:
            async for chunk in request.stream():
                self._bodies.take(len(chunk))
                request.state.held += len(chunk)
                content.extend(chunk)
                if len(content) > self._limits.body:
                    raise Refused(413, f"Expected at most {self._limits.body:,} bytes.")

        try:
            await asyncio.wait_for(read(), self._limits.seconds)
        except asyncio.TimeoutError as error:
            raise Refused(408, f"The body took over {self._limits.seconds:g} s to come.") from error
        if not content:
            raise Refused(400, "Expected a JPEG, PNG or JSON as the body, found nothing.")
        return bytes(content)

    def _best(self, logits: np.ndarray) -> list[dict[str, Any]]:
        return [asdict(one) for one in self._model.best(logits)]


async def _answered(handler: Handler, request: Request) -> Response:
    """The handler's answer; any exception becomes JSON."""
    try:
        return await handler(request)
    except Refused as refusal:
        return JSONResponse({"error": str(refusal)}, refusal.status)
    except Busy:
        content = {"error": "The server is busy: try again in a second."}
        return JSONResponse(content, 503, {"Retry-After": "1"})
    except ClientDisconnect:
        return Response(status_code=499)
    # A bug or a failing model: it is logged, and the server keeps running.
    except Exception:
        logging.getLogger(__name__).exception("%s failed", request.url.path)
        content = {"error": "The server failed at this request; see its log."}
        return JSONResponse(content, 500)


def _eps(text: str) -> float:
    try:
        eps = float(parse_number(text))
    except (TFRobustError, ValueError, ZeroDivisionError) as error:
        raise Refused(400, f"eps: expected a number such as 8/255, found {text!r}.") from error
    if not 0 < eps <= _MOST_EPS:
        raise Refused(400, f"eps: expected more than 0, at most {_MOST_EPS}, found {eps:g}.")
    return eps


def _as_png(image: np.ndarray) -> str:
    """An image in [0, 1] as a data URI."""
    file = io.BytesIO()
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
