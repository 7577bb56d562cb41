"""Files of `torch.save`: Pillow images, arrays and tensors rebuilt only from plain values."""

from __future__ import annotations

import math
import re
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from tfrobust.data.images import MAX_PIXELS, reason
from tfrobust.data.pickle_tree import Call, Global, Persistent, Record, UnsafePickleError, parse
from tfrobust.errors import TFRobustError

_STORAGES = {
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "HalfStorage": "f2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "BoolStorage": "b1",
}
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I", "I;16", "F")
# Calls that only occur inside others, and are read there.
_PARTS = ("_codecs.encode", "__builtin__.bytes", "collections.OrderedDict", "numpy.dtype")
# Attributes that Pillow keeps of a file beside its pixels; they are ignored.
_INFO = ("fractions.Fraction", "PIL.PngImagePlugin.iTXt")
_SIMPLE_DTYPE = re.compile(r"[<>|=]?([iuf][248]|[biu]1)")


class TorchArchive:
    """A file that `torch.save` wrote: the tree of its pickle, and values on demand.

    Args:
      location: the file, for messages.
      archive: the file opened as a zip; it must stay open while values are read.
      what: the expected content, for messages.
      advice: how to save that, for messages.

    Attributes:
      tree: the saved object, as returned by `pickle_tree.parse`.

    Raises:
      TFRobustError: it was not written by `torch.save`, is broken, or is rejected.
    """

    def __init__(
        self,
        location: Path,
        archive: zipfile.ZipFile,
        *,
        what: str = "a data set",
        advice: str = "save an object with only ids, imgs and labels (plain tensors or arrays, "
        "no transforms)",
    ) -> None:
        self._location = location
        self._advice = advice
        self._archive = archive
        self._lock = threading.Lock()
        self._storages: dict[str, np.ndarray] = {}
        names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(names) != 1 or f"{names[0][:-8]}constants.pkl" in archive.namelist():
            raise TFRobustError(
                f"{location}: expected {what} written by torch.save, found another kind of "
                f"archive: {advice}."
            )
        self._prefix = names[0][: -len("data.pkl")]
        self.tree = self._parse()

    def _parse(self) -> Any:
        try:
            self._order: Literal[">", "<"] = "<"
            if self._read("byteorder", b"little") == b"big":
                self._order = ">"
            return parse(self._read("data.pkl"), CALLS)
        except UnsafePickleError as error:
            raise TFRobustError(
                f"{self._location} is rejected because it refers to {error}, which is not on the "
                f"list of allowed names: {self._advice}, or do not trust this file."
            ) from error
        except Exception as error:
            raise TFRobustError(
                f"{self._location} cannot be read ({reason(error)}): copy or save it again."
            ) from error

    def _read(self, name: str, default: bytes | None = None) -> bytes:
        path = self._prefix + name
        if path not in self._archive.NameToInfo:
            if default is None:
                raise ValueError(f"{name[:100]!r} is not in the file")
            return default
        with self._lock:
            return self._archive.read(path)

    def value(self, node: Any) -> Image.Image | np.ndarray:
        """The image or array that a node of the tree describes.

        Raises:
          ValueError: it describes neither, or is broken.
        """
        if isinstance(node, Record) and node.type.module.split(".")[0] == "PIL":
            return self._image(node)
        if isinstance(node, Call) and str(node.function) in self.REBUILD:
            return self.REBUILD[str(node.function)](self, node)
        raise ValueError(f"a {kind(node)}, expected a Pillow image, an array or a tensor")

    def _image(self, node: Record) -> Image.Image:
        info, mode, size, palette, content = node.state[:5]
        if mode not in _MODES:
            raise ValueError("a Pillow image of an unknown mode")
        width, height = map(_natural, size)
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width}x{height} pixels, above the limit of {MAX_PIXELS:,}")
        image = Image.frombytes(mode, (width, height), self._bytes(content))
        if mode in ("P", "PA") and palette is not None:
            image.putpalette([_natural(value) for value in palette])
        image.info.update(self._appearance(info))
        return image

    def _appearance(self, info: Any) -> dict[str, Any]:
        """The parts of an image's info that affect its look: transparent colours, orientation."""
        found: dict[str, Any] = {}
        for key in ("transparency", "exif"):
            value = info.get(key) if isinstance(info, dict) else None
            if type(value) is tuple:
                found[key] = tuple(map(_natural, value))
            elif value is not None:
                found[key] = value if type(value) is int else self._bytes(value)
        return found

    def _bytes(self, node: Any) -> bytes:
        if isinstance(node, Call) and str(node.function) == "_codecs.encode":
            text, encoding = node.args
            if type(text) is str and encoding == "latin1":
                return text.encode("latin1")
        if isinstance(node, Call) and str(node.function) == "__builtin__.bytes" and not node.args:
            return b""  # as protocol 2 writes it
        if type(node) in (bytes, bytearray):
            return bytes(node)
        raise ValueError(f"a {kind(node)}, expected bytes")

    def _dtype(self, node: Any) -> np.dtype[Any]:
        if not (isinstance(node, Call) and str(node.function) == "numpy.dtype"):
            raise ValueError(f"a {kind(node)}, expected a numpy dtype")
        if not (type(node.args[0]) is str and _SIMPLE_DTYPE.fullmatch(node.args[0])):
            raise ValueError("a numpy dtype that is not a plain number")
        big = node.state is not None and node.state[1] == ">"
        return np.dtype(node.args[0]).newbyteorder(">" if big else "<")

    def _array(self, node: Call) -> np.ndarray:
        _, shape, number, fortran, content = node.state
        dtype = self._dtype(number)
        flat = np.frombuffer(self._bytes(content), dtype)
        return flat.reshape([_natural(n) for n in shape], order="F" if fortran else "C")

    def _buffer(self, node: Call) -> np.ndarray:
        content, number, shape, order, *axes = node.args
        flat = np.frombuffer(self._bytes(content), self._dtype(number))
        size = [_natural(n) for n in shape]
        if order == "K":  # stored in the order of its memory; numpy 2.3 or later
            return flat.reshape(size).transpose([_natural(axis) for axis in axes[0]])
        return flat.reshape(size, order=order)

    def _number(self, node: Call) -> np.ndarray:
        dtype, content = node.args
        return np.frombuffer(self._bytes(content), self._dtype(dtype)).reshape(())

    def _tensor(self, node: Call) -> np.ndarray:
        storage, first, size, steps = node.args[:4]
        flat = self._storage(storage)[_natural(first) :]
        size, steps = [_natural(n) for n in size], [_natural(n) for n in steps]
        last = sum((n - 1) * step for n, step in zip(size, steps, strict=True))
        # A view may repeat elements (stride 0) and have any size: grey images expanded to channels
        # need no more than this.
        if math.prod(size) > 4 * len(flat) or (math.prod(size) and last >= len(flat)):
            raise ValueError(f"a tensor of size {size} that exceeds its storage")
        strides = [step * flat.itemsize for step in steps]
        return np.lib.stride_tricks.as_strided(flat, size, strides, writeable=False)

    def _storage(self, node: Any) -> np.ndarray:
        tag, storage, key = node.id[:3] if isinstance(node, Persistent) else (None, None, None)
        if tag != "storage" or not isinstance(storage, Global) or type(key) is not str:
            raise ValueError("a tensor without a storage")
        dtype = storage_type(storage).newbyteorder(self._order)
        if key not in self._storages:
            self._storages[key] = np.frombuffer(self._read(f"data/{key}"), dtype)
        return self._storages[key]

    # The supported calls, and their replacements.
    REBUILD: dict[str, Callable[[TorchArchive, Call], np.ndarray]] = {
        "numpy.core.multiarray._reconstruct": _array,
        "numpy._core.multiarray._reconstruct": _array,
        "numpy.core.numeric._frombuffer": _buffer,
        "numpy._core.numeric._frombuffer": _buffer,
        "numpy.core.multiarray.scalar": _number,
        "numpy._core.multiarray.scalar": _number,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
    }


# The names that a pickle of torch may use.
CALLS = frozenset((*TorchArchive.REBUILD, *_PARTS, *_INFO))


def storage_type(storage: Global) -> np.dtype[Any]:
    """The number type of a torch storage.

    Raises:
      ValueError: the type is not supported.
    """
    if storage.module != "torch" or storage.name not in _STORAGES:
        raise ValueError(f"a tensor of {storage}, expected one of {', '.join(_STORAGES)}")
    return np.dtype(_STORAGES[storage.name])


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise ValueError(f"a {kind(value)} where a size is expected")
    return value


def kind(node: Any) -> str:
    """The kind of a node of the tree, for messages."""
    if isinstance(node, Record):
        return str(node.type)
    return str(node.function) if isinstance(node, Call) else type(node).__name__
