"""Export: trained models for use outside of Python and Keras."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from tfrobust.tables import Table

if TYPE_CHECKING:
    from tfrobust.export.formats import Format
    from tfrobust.export.image_bytes import MAX_PIXELS, MAX_REQUEST_PIXELS
    from tfrobust.export.saved_model import TOLERANCE, export

__all__ = ["FORMATS", "MAX_PIXELS", "MAX_REQUEST_PIXELS", "TOLERANCE", "export"]

#: Formats besides the SavedModel: a name -> a `formats.Format`.
FORMATS: Table[type[Format]] = Table(
    "export format",
    {
        "weights": "tfrobust.export.formats:Weights",
        "tflite": "tfrobust.export.formats:TFLite",
        "tflite-int8": "tfrobust.export.formats:TFLiteInt8",
        "onnx": "tfrobust.export.formats:ONNX",
    },
    "tfrobust.formats",
)
_PLACES = {
    "MAX_PIXELS": "image_bytes",
    "MAX_REQUEST_PIXELS": "image_bytes",
    "TOLERANCE": "saved_model",
    "export": "saved_model",
}


def __getattr__(name: str) -> Any:
    # TensorFlow is imported only when needed: help texts stay fast.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


class _Callable(types.ModuleType):
    """`tfrobust.export` is both a package and a function, whatever is imported first."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tfrobust.export.saved_model import export

        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
