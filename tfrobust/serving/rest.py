"""TensorFlow Serving's REST format of a request: JSON rows, base64 or floats."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from tfrobust.serving.limits import Refused

# Signatures of the exported model, and the type of their instances here.
_SIGNATURES: dict[str, type] = {"image_bytes": bytes, "serving_default": np.ndarray}


def parse(body: bytes, shape: tuple[int, int], most: int) -> list[bytes | np.ndarray]:
    """The images of a request: encoded ones as bytes, others as float32 [H, W, 3] in [0, 1].

    ``{"instances": [...], "signature_name": ...}``; an instance is ``{"b64": ...}``,
    ``{"image_bytes": {"b64": ...}}``, ``[H][W][3]`` floats or ``{"images": floats}``. Without a
    signature name both kinds are accepted.

    Args:
      body: JSON.
      shape: (H, W) of the model.
      most: maximum number of instances.

    Raises:
      Refused: the body is anything else.
    """
    _check_marks(body, shape, most)
    content = _loaded(body)
    instances, name = content["instances"], content.get("signature_name")
    if not isinstance(instances, list) or not instances:
        raise Refused(400, f'"instances": expected a list of 1 to {most} images.')
    if len(instances) > most:
        raise Refused(413, f'"instances": expected a list of 1 to {most} images, found '
                           f"{len(instances):,}.")  # fmt: skip
    kind = _kind(name)
    images = [_instance(one, shape) for one in instances]
    if not all(isinstance(one, kind) for one in images):
        wanted = "base64" if kind is bytes else "floats"
        raise Refused(400, f"signature {name}: expected instances of {wanted}, found others.")
    return images


def _check_marks(body: bytes, shape: tuple[int, int], most: int) -> None:
    """Rejects JSON with more values than the largest valid request.

    Python parses JSON in one go, which blocks the rest of the server.
    """
    height, width = shape
    # Per pixel a bracket and three commas, per row a bracket, and the surrounding names.
    allowed = most * (4 * height * width + height + 16) + 64
    if sum(body.count(mark) for mark in (b"[", b"{", b",")) > allowed:
        raise Refused(413, f"Expected at most {most} images of {height} x {width} pixels, found "
                           "JSON with more values than these have.")  # fmt: skip


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, 'Expected JSON with a list "instances".') from error
    if not isinstance(content, dict) or "instances" not in content:
        raise Refused(400, 'Expected JSON with a list "instances".')
    return content


def _kind(name: Any) -> type:
    """The required type of a signature's instances."""
    if name is None or name == "":
        return object
    found = _SIGNATURES.get(name) if isinstance(name, str) else None
    if found is None:
        known = " or ".join(_SIGNATURES)
        raise Refused(400, f'"signature_name": expected {known}, found {repr(name)[:80]}.')
    return found


def _instance(one: Any, shape: tuple[int, int]) -> bytes | np.ndarray:
    if isinstance(one, dict):
        inner = one.get("image_bytes", one)
        text = inner.get("b64") if isinstance(inner, dict) else None
        if isinstance(text, str):
            return _bytes(text)
        one = one.get("images")
    return _floats(one, shape)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    # Non-ASCII characters raise ValueError, everything else its subclass binascii.Error.
    except ValueError as error:
        raise Refused(400, f"b64: expected base64, found something else ({error}).") from error


def _floats(numbers: Any, shape: tuple[int, int]) -> np.ndarray:
    try:
        # Values too large for float32 become infinite, and are rejected below.
        with np.errstate(over="ignore"):
            image = np.asarray(numbers, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(400, "An instance is neither base64 nor numbers.") from error
    if image.shape != (*shape, 3) or not (image.min() >= 0 and image.max() <= 1):
        raise Refused(400, f"Expected floats [{shape[0]}, {shape[1]}, 3] in [0, 1], found "
                           f"{list(image.shape)}, or values outside.")  # fmt: skip
    return image
