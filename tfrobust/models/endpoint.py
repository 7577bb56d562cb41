"""A model behind an address: images are sent to it, and it answers with their outputs.

TensorFlow Serving's REST form, https://www.tensorflow.org/tfx/serving/api_rest, is that of
this project's own server, of TensorFlow Serving and of KServe (its protocol v1). Only the outputs
of such a model are accessible, so attacks on it are those that need no gradient.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.models.outside import Outside
from tfrobust.models.rest import Patience, RestClient, as_address
from tfrobust.typing import Json

LOGITS, PROBABILITIES, LABELS = "logits", "probabilities", "labels"
# The outputs of one image by their names, the most informative first.
_NAMES = {
    "logits": LOGITS,
    "probabilities": PROBABILITIES,
    "scores": "",
    "label": LABELS,
    "class_id": LABELS,
    "classes": LABELS,
}
#: The logit of the class of a label; 0 for the others.
SCORE = 10.0
_TINY = float(np.finfo(np.float32).tiny)
# Bytes of a number in JSON, and the most of a request.
_NUMBER, _REQUEST = 24, 8 << 20


class Endpoint(Outside):
    """The model at an address as a function: images in [0, 1] -> logits.

    Probabilities are turned into their logarithms. If the server answers with labels only, the
    class of the label gets `SCORE` and the others 0: enough for attacks that use decisions only.
    The first answer shows which it is. The server has to be another process: a graph that waits
    for an answer occupies threads that a model in the same process would need.

    Args:
      address: ``http://HOST/v1/models/NAME``, perhaps with ``/versions/N``.
      classes: K; None if unknown.
      patience: batches, concurrency, retries and limits of requests.

    Attributes:
      address: of the model.
      classes: K; None while unknown.
      batch_shape: (B, H, W, C) of its images with None for any, from its metadata; or None.
      failure: the last error, for `told_plainly`.

    Raises:
      UsageError: it is no address.
      TFRobustError: there is no answer, or no such model.
    """

    def __init__(
        self, address: str, *, classes: int | None = None, patience: Patience | None = None
    ) -> None:
        self._client = RestClient(as_address(address), patience or Patience())
        self.address, self.classes = self._client.address, classes
        self._expected: int | None = None
        self._kind, self._lock = "", threading.Lock()
        self._pool = ThreadPoolExecutor(self._client.patience.at_once, "endpoint")
        weakref.finalize(self, self._client.close)
        self._check_ready()
        self.batch_shape = _shape_in(self._metadata())

    @property
    def queries(self) -> int:
        """The number of images sent so far."""
        return self._client.images

    @property
    def notes(self) -> list[str]:
        """How it was adapted, a sentence each, for the report."""
        notes = [
            f"the model is an address, {self.address}: attacks see only its outputs, and the score "
            "is an upper bound that no gradient attack has tested"
        ]
        if self._kind == PROBABILITIES:
            notes.append("it answers with probabilities: their logarithm is taken")
        if self._kind == LABELS:
            notes.append("it answers with labels only: confidences mean nothing")
        return notes

    def expect(self, classes: int) -> None:
        """Sets the number of classes, for a server that answers with labels only.

        Other answers show it themselves.

        Args:
          classes: of the images.
        """
        self._expected = classes

    def _check_ready(self) -> None:
        """Rejects an address without a ready model; passes if the server does not support GET."""
        found = self._client.get()
        versions = found.get("model_version_status") if isinstance(found, dict) else None
        listed = versions if isinstance(versions, list) else []
        states = [one.get("state") for one in listed if isinstance(one, dict)]
        ready = found.get("ready") if isinstance(found, dict) else None
        if (states and "AVAILABLE" not in states) or str(ready).lower() == "false":
            raise TFRobustError(
                f"{self.address} is not ready ({', '.join(map(str, states)) or ready}): "
                "expected a model that is available; try again once it is loaded."
            )

    def _metadata(self) -> Json:
        """The server's description of its signatures; None if it has none (KServe)."""
        try:
            return self._client.get("/metadata")
        except TFRobustError:
            return None

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """float32 [B, H, W, C] in [0, 1] -> float32 logits [B, K].

        Raises:
          TFRobustError: there is no answer, or no valid one.
        """
        if not len(x):
            return np.zeros((0, self.classes or 0), np.float32)
        size = max(1, min(self._client.patience.batch, _REQUEST // (_NUMBER * x[0].size)))
        parts = [x[first : first + size] for first in range(0, len(x), size)]
        # Single requests use the pool too: it limits the requests of all callers together.
        return np.concatenate(list(self._pool.map(self._one_request, parts)))

    def _one_request(self, x: np.ndarray) -> np.ndarray:
        answer = self._client.predict(x.tolist())
        rows = answer.get("predictions") if isinstance(answer, dict) else None
        if not isinstance(rows, list) or len(rows) != len(x):
            found = f"{len(rows)} of them" if isinstance(rows, list) else "none"
            raise TFRobustError(
                f'{self.address}: expected "predictions" for {len(x)} images in its answer, found '
                f"{found}: use a server with TensorFlow Serving's REST form by rows."
            )
        kind, values = self._read(rows)
        with self._lock:
            self._kind = self._kind or kind or _seeming(values)
        return self._as_logits(values)

    def _read(self, rows: list[Json]) -> tuple[str, np.ndarray]:
        """The kind of the rows, '' if unknown, and the outputs, float32 [B, K]."""
        named = [_output(row) for row in rows]
        kind, values = named[0][0], [value for _, value in named]
        try:
            found = np.asarray(values, np.float32)
        except (ValueError, TypeError, OverflowError):
            found = np.zeros(0, np.float32)
        dimensions = 1 if kind == LABELS else 2
        if any(one != kind for one, _ in named) or found.ndim != dimensions or not found.size:
            raise TFRobustError(
                f"{self.address}: expected a row of numbers, or a label, for each image, found "
                f"{str(rows[0])[:80]!r}: make it serve logits, probabilities or labels."
            )
        return kind, self._one_hot(found) if kind == LABELS else found

    def _one_hot(self, labels: np.ndarray) -> np.ndarray:
        """Labels as scores, float32 [B, K]."""
        self.classes = self.classes or self._expected
        if self.classes is None:
            raise TFRobustError(
                f"{self.address} answers with labels only, which do not show how many classes it "
                "has: expected Endpoint(address, classes=K), or data that names its classes."
            )
        if not ((labels >= 0) & (labels < self.classes) & (labels == np.floor(labels))).all():
            raise TFRobustError(
                f"{self.address}: expected labels in 0..{self.classes - 1}, found "
                f"{labels.min():g} to {labels.max():g}: give it images of its own classes."
            )
        hot: np.ndarray = np.eye(self.classes, dtype=np.float32)[labels.astype(np.int64)]
        return SCORE * hot

    def _as_logits(self, values: np.ndarray) -> np.ndarray:
        if self._kind == PROBABILITIES:
            values = np.log(np.maximum(values, _TINY))
        if self.classes is None:
            self.classes = values.shape[1]
        if values.shape[1] != self.classes:
            raise TFRobustError(
                f"{self.address}: expected outputs of {self.classes} classes, as before, found "
                f"{values.shape[1]}: one address has to be one model."
            )
        return values


def _output(row: Json) -> tuple[str, Json]:
    """(kind, '' if unknown; outputs) of one image."""
    if isinstance(row, Mapping):
        for name, kind in _NAMES.items():
            if name in row:
                return kind, row[name]
        return _output(next(iter(row.values()))) if len(row) == 1 else ("", None)
    return (LABELS if isinstance(row, int) else ""), row


def _seeming(values: np.ndarray) -> str:
    """Whether outputs without a name are probabilities, by the first answer."""
    inside = bool((values >= 0).all() and (values <= 1 + 1e-3).all())
    # In half precision a sum may be off by a hundredth.
    sums = values.shape[1] > 1 and bool((np.abs(values.sum(axis=1) - 1) <= 0.02).all())
    return PROBABILITIES if inside and sums else LOGITS


def _shape_in(metadata: Json) -> tuple[int | None, ...] | None:
    """The shape of the one input of `serving_default`, batch axis first; None if unknown."""
    try:
        signatures = cast(Any, metadata)["metadata"]["signature_def"]["signature_def"]
        [image] = signatures["serving_default"]["inputs"].values()
        sizes = [int(one["size"]) for one in image["tensor_shape"]["dim"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return tuple(None if size < 0 else size for size in sizes) if len(sizes) == 4 else None
