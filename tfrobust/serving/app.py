"""The HTTP server: predictions in batches, what decides them, health, figures, a page."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tfrobust.data.images import decode
from tfrobust.errors import TFRobustError
from tfrobust.explain.figures_maps import overlaid
from tfrobust.serving.batcher import Batcher, Busy
from tfrobust.serving.metrics import Metrics
from tfrobust.serving.model import ServedModel
from tfrobust.settings import parse_number

Handler = Callable[[Request], Awaitable[Response]]
# The largest radius of the page's attack.
_MOST_EPS = 0.25


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
      body: bytes of a request.
      instances: images in a request of TensorFlow Serving's form.
      seconds: that a client may take to send its body.
      queue: images that may wait for the model.
      batch: images that run at once.
    """

    body: int = 16 * 2**20
    instances: int = 128
    seconds: float = 20.0
    queue: int = 512
    batch: int = 32


class Refused(Exception):
    """A request that gets no answer but a sentence.

    Args:
      status: of HTTP.
      message: what was expected, what was found.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def make_app(model: ServedModel, limits: Limits | None = None) -> Starlette:
    """The server as an ASGI application, for uvicorn or any other.

    | | |
    |---|---|
    | GET / | the page |
    | POST /predict | an image file as the body -> the five most probable classes |
    | POST /explain | the same -> the gradient laid over the image in red |
    | POST /attack?eps=8/255 | the same -> what PGD makes of it, and what is predicted then |
    | POST /v1/models/NAME:predict | TensorFlow Serving's REST form, base64 or floats |
    | GET /health, /metrics | whether it is ready; figures for Prometheus |
    """
    return _Server(model, limits or Limits()).app


class _Server:
    def __init__(self, model: ServedModel, limits: Limits) -> None:
        self._model, self._limits, self._metrics = model, limits, Metrics()
        self._batcher = Batcher(
            model.probabilities, max_batch=limits.batch, queue=limits.queue,
            on_batch=self._metrics.batches.observe,
        )  # fmt: skip
        self._decoders = ThreadPoolExecutor(2, "decode")
        name = f"/v1/models/{model.name}"
        routes = [
            Route("/", self._page),
            Route("/health", self._health),
            Route("/metrics", self._figures),
            Route("/predict", self._guarded(self._predict), methods=["POST"]),
            Route("/explain", self._guarded(self._explain), methods=["POST"]),
            Route("/attack", self._guarded(self._attack), methods=["POST"]),
            Route(f"{name}:predict", self._guarded(self._rest), methods=["POST"]),
            Route(name, self._status),
        ]
        self.app = Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._batcher.start()
        yield
        await self._batcher.stop()
        self._decoders.shutdown()

    def _guarded(self, handler: Handler) -> Handler:
        """Refusals as JSON, and every request counted and timed."""

        async def run(request: Request) -> Response:
            begin = time.perf_counter()
            try:
                response = await handler(request)
            except Refused as refusal:
                response = JSONResponse({"error": str(refusal)}, refusal.status)
            except Busy:
                response = JSONResponse(
                    {"error": "The server is busy: try again in a second."}, 503,
                    {"Retry-After": "1"},
                )  # fmt: skip
            except ClientDisconnect:
                response = Response(status_code=499)
            self._metrics.seen(handler.__name__[1:], response.status_code, begin)
            return response

        return run

    async def _page(self, _: Request) -> Response:
        text = files("tfrobust.serving").joinpath("page.html").read_text(encoding="utf-8")
        known = {"name": self._model.name, "version": self._model.version,
                 "classes": len(self._model.label_names), "shape": self._model.shape}  # fmt: skip
        # '<' cannot end the script there.
        return HTMLResponse(text.replace("{{model}}", json.dumps(known).replace("<", "\\u003c")))

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ready", "waiting": self._batcher.waiting})

    async def _figures(self, _: Request) -> Response:
        self._metrics.waiting.set(self._batcher.waiting)
        content, kind = self._metrics.text()
        return Response(content, media_type=kind)

    async def _status(self, _: Request) -> Response:
        state = {"version": str(self._model.version), "state": "AVAILABLE",
                 "status": {"error_code": "OK", "error_message": ""}}  # fmt: skip
        return JSONResponse({"model_version_status": [state]})

    async def _predict(self, request: Request) -> Response:
        image = await self._image(await self._body(request))
        return JSONResponse({"predictions": self._best(await self._batcher.submit(image))})

    async def _explain(self, request: Request) -> Response:
        image = await self._image(await self._body(request))
        found = await self._batcher.submit(image)
        gradient = await self._batcher.call(lambda: self._model.saliency(image))
        red = overlaid(image[None], gradient[None])[0]
        return JSONResponse({
            "predictions": self._best(found), "image": _as_png(image), "overlay": _as_png(red),
        })  # fmt: skip

    async def _attack(self, request: Request) -> Response:
        eps = _eps(request.query_params.get("eps", "8/255"))
        image = await self._image(await self._body(request))
        clean = await self._batcher.submit(image)
        made = await self._batcher.call(lambda: self._model.attack(image, eps))
        return JSONResponse({
            "eps": eps, "clean": self._best(clean), "image": _as_png(made),
            "adversarial": self._best(await self._batcher.submit(made)),
            "difference": _as_png(np.clip(0.5 + (made - image) / (2 * max(eps, 1e-6)), 0, 1)),
        })  # fmt: skip

    async def _rest(self, request: Request) -> Response:
        """{"instances": [{"b64": ...} or {"image_bytes": {"b64": ...}} or [H][W][3] floats]}."""
        try:
            asked = json.loads(await self._body(request))
            instances = asked["instances"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Refused(400, 'Expected JSON with a list "instances".') from error
        if not isinstance(instances, list) or not 1 <= len(instances) <= self._limits.instances:
            most = self._limits.instances
            raise Refused(400, f'"instances": expected a list of 1 to {most} images.')
        images = await asyncio.gather(*(self._instance(one) for one in instances))
        rows = await asyncio.gather(*(self._batcher.submit(image) for image in images))
        return JSONResponse({"predictions": [self._answer(row) for row in rows]})

    async def _instance(self, one: Any) -> np.ndarray:
        if isinstance(one, dict):
            inner = one.get("image_bytes", one)
            text = inner.get("b64") if isinstance(inner, dict) else None
            if isinstance(text, str):
                try:
                    return await self._image(base64.b64decode(text, validate=True))
                except binascii.Error as error:
                    raise Refused(
                        400, f"b64: expected base64, found otherwise ({error})."
                    ) from error
            one = one.get("images")
        try:
            image = np.asarray(one, np.float32)
        except (ValueError, TypeError) as error:
            raise Refused(400, "An instance is neither base64 nor numbers.") from error
        height, width = self._model.shape
        if image.shape != (height, width, 3) or not (image.min() >= 0 and image.max() <= 1):
            raise Refused(400, f"Expected floats [{height}, {width}, 3] in [0, 1], found "
                               f"{list(image.shape)}, or values outside.")  # fmt: skip
        return image

    def _answer(self, row: np.ndarray) -> dict[str, Any]:
        best = self._model.best(row, 1)[0]
        return {"label": best.label, "label_name": best.name,
                "probabilities": [float(p) for p in row]}  # fmt: skip

    async def _body(self, request: Request) -> bytes:
        """The request's body, within size and time."""
        content = bytearray()

        async def read() -> None:
            async for chunk in request.stream():
                content.extend(chunk)
                if len(content) > self._limits.body:
                    raise Refused(413, f"Expected at most {self._limits.body:,} bytes.")

        try:
            await asyncio.wait_for(read(), self._limits.seconds)
        except asyncio.TimeoutError as error:
            raise Refused(408, f"The body took over {self._limits.seconds:g} s to come.") from error
        if not content:
            raise Refused(400, "Expected an image file as the body, found nothing.")
        return bytes(content)

    async def _image(self, content: bytes) -> np.ndarray:
        """An encoded image as the model was trained to take it."""
        height, width = self._model.shape
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._decoders, decode, content, (width, height))
        except ValueError as error:
            raise Refused(400, f"The image cannot be read: {error}.") from error
        return np.asarray(found.pixels, np.float32) / np.float32(255)

    def _best(self, row: np.ndarray) -> list[dict[str, Any]]:
        return [asdict(one) for one in self._model.best(row)]


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
