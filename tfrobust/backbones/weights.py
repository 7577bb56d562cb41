"""Weights from a file or from Keras's server, checked completely before any is loaded."""

from __future__ import annotations

import io
import logging
import re
import socket
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tfrobust.backbones import torch_weights
from tfrobust.backbones.unfreezing import HEAD_LAYER
from tfrobust.errors import TFRobustError, UsageError

if TYPE_CHECKING:
    from tfrobust.backbones.description import Backbone
    from tfrobust.runtime import keras

_log = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 10
_SHOWN = 3
# The layers with ImageNet's 1000 classes in keras.applications and torchvision.
_HEADS = (HEAD_LAYER, "predictions", "fc")

# Exceptions that h5py, zipfile and zlib raise for a damaged or foreign file.
_DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)

# h5py datasets or arrays.
Stored = dict[str, list[Any]]


def fetch(backbone: Backbone, *, alpha: float, side: int) -> Path:
    """Downloads a backbone's ImageNet weights, or finds them in ``~/.keras/models``.

    Args:
      backbone: the network.
      alpha: its width.
      side: side in pixels of the images that it sees; of weights trained at several sizes, the
        nearest is used.

    Raises:
      UsageError: there are no ImageNet weights for this network, or for this width.
      TFRobustError: the download failed; the message names the file and where to put it.
    """
    if backbone.url is None:
        raise UsageError(
            f"ImageNet weights of {backbone.name}: expected a local file, Keras publishes none for "
            "download: name a .h5, .keras or .pth file, or choose none."
        )
    if backbone.widths and alpha not in backbone.widths:
        raise UsageError(
            f"ImageNet weights of {backbone.name}: expected alpha to be one of "
            f"{', '.join(map(str, backbone.widths))}, found {alpha}."
        )
    nearest = min(backbone.sides, key=lambda one: abs(one - side), default=None)
    url = backbone.url.format(alpha=float(alpha), side=nearest)
    name = backbone.file or url.rpartition("/")[2]
    from tfrobust.runtime import keras

    try:
        with _socket_timeout(_TIMEOUT_SECONDS):
            file = keras.utils.get_file(name, url, cache_subdir="models", file_hash=backbone.md5)
    # Keras raises a bare Exception for a failed download.
    except Exception as error:
        raise TFRobustError(
            f"ImageNet weights of {backbone.name} could not be downloaded "
            f"({_one_line(error).rpartition(' -- ')[2]}): fetch {url} elsewhere and put it at "
            f"{Path.home() / '.keras' / 'models' / name}, or choose other weights."
        ) from error
    return Path(file)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bounds each wait for the network, which `get_file` leaves unbounded."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load(model: keras.Model, path: str | Path) -> None:
    """Loads a file's weights into a classifier made by `build`: all of them, or none.

    The file is Keras HDF5 (``.h5``, weights or a whole model), ``.weights.h5``, a whole model as
    ``.keras``, or a torch state dict (``.pth`` or ``.pt``), which fits the networks with
    torchvision's names: resnet18, resnet34 and resnext50. Nothing in it is executed. Layers are
    matched by name, or by order if the names differ but all shapes in sequence agree (as Keras
    itself reads its official files). A head with another number of classes is skipped, which is
    logged as a warning; if the file has no head, the model keeps its own.

    Args:
      model: the classifier; unchanged unless the whole file fits.
      path: the file.

    Raises:
      TFRobustError: the file is missing or unreadable, or does not match: the message names the
        first mismatches and their number.
    """
    path = Path(path).expanduser()
    ours = {layer.name: layer for layer in model.layers if _is_learned(layer)}
    with _opened(path, model) as stored:
        left_out = _match_head(stored, ours)
        stored = _named_alike(stored, ours)
        _check_fit(stored, ours, f"Weights {path} do not fit {model.name}")
        values = {name: _read(name, datasets, path) for name, datasets in stored.items()}
    for name, arrays in values.items():
        ours[name].set_weights(arrays)
    if left_out:
        _log.warning("Weights %s: %s", path, left_out)


def _is_learned(layer: Any) -> bool:
    """Whether a layer's variables are weights, and not EfficientNet's pixel statistics."""
    from tfrobust.runtime import keras

    return bool(layer.weights) and not isinstance(layer, keras.layers.Normalization)


@contextmanager
def _opened(path: Path, model: keras.Model) -> Iterator[Stored]:
    """The content of the file at `path`, open while in use."""
    if not path.is_file():
        raise TFRobustError(
            f"Weights {path}: expected 'imagenet', 'none' or a file, found no such file."
        )
    if path.suffix in torch_weights.SUFFIXES:
        yield {name: list(arrays) for name, arrays in torch_weights.read(path).items()}
        return
    with _open(path) as file:
        yield _stored(file, model)


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file at `path`, or the one inside a .keras archive, open while in use."""
    try:
        source: Any = path
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                source = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(source, "r") as file:
            yield file
    except _DAMAGE as error:
        raise TFRobustError(
            f"Weights {path} cannot be read as Keras HDF5 or .keras ({_one_line(error)}): the "
            "file may be truncated or of another kind, so fetch or save it again."
        ) from error


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split()).rstrip(".")


def _stored(file: h5py.File, model: keras.Model) -> Stored:
    """Layer name -> datasets, in the file's order; layers without any are omitted."""
    group = file.get("model_weights", file)
    by_name = "layer_names" in group.attrs
    stored = _stored_by_name(group) if by_name else _stored_by_class(group["layers"], model)
    return {name: datasets for name, datasets in stored.items() if datasets}


def _stored_by_name(group: h5py.Group) -> Stored:
    """The layout of legacy HDF5: layers by name, pixel statistics omitted."""
    names = [_text(name) for name in group.attrs["layer_names"]]
    return {
        name: [group[name][_text(one)] for one in group[name].attrs["weight_names"]]
        for name in names
        if not re.fullmatch(r"normalization(_\d+)?", name)
    }


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _stored_by_class(group: h5py.Group, model: keras.Model) -> Stored:
    """The layout of .weights.h5 and .keras: layers by class, numbered in order."""
    names: dict[str, Any] = {}
    seen = Counter[str]()
    for layer in model.layers:
        kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
        names[f"{kind}_{seen[kind]}" if seen[kind] else kind] = layer
        seen[kind] += 1
    found = {}
    for key, stored in group.items():
        if not key.startswith("normalization"):
            layer = names.get(key) or names.get(_of_other_convolution(key))
            found[layer.name if layer else key] = _datasets(stored, layer)
    return found


def _of_other_convolution(key: str) -> str:
    """The key of the same layer if the network used the other convolution."""
    unfolded = key.startswith("unfold_conv2d")
    return key.removeprefix("unfold_") if unfolded else f"unfold_{key}"


def _datasets(group: h5py.Group, layer: Any) -> list[h5py.Dataset]:
    """A layer's own variables, then those of nested layers, in the order of its weights.

    Nested layers, as in MultiHeadAttention, are stored under their attributes' names.
    """
    own = [group["vars"][str(i)] for i in range(len(group["vars"]))]
    inner = {
        id(variable): dataset
        for name in group
        if name != "vars" and hasattr(layer, name)
        for variable, dataset in zip(
            getattr(layer, name).weights, _datasets(group[name], None), strict=False
        )
    }
    return own + [inner[id(one)] for one in getattr(layer, "weights", ()) if id(one) in inner]


def _match_head(stored: Stored, ours: dict[str, Any]) -> str | None:
    """Removes the head from both sides unless the file has a matching one.

    Returns:
      A description of what was skipped in the file, or None.
    """
    datasets = next((stored.pop(name) for name in _HEADS if name in stored), None)
    if datasets and _shapes(datasets) == _shapes(ours[HEAD_LAYER].weights):
        stored[HEAD_LAYER] = datasets
        return None
    head = ours.pop(HEAD_LAYER)
    if not datasets:
        return None
    return (
        f"the head for {datasets[0].shape[-1]} classes is skipped; the new one for {head.units} "
        "starts from random weights."
    )


def _shapes(arrays: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(array.shape) for array in arrays]


def _named_alike(stored: Stored, ours: Mapping[str, Any]) -> Stored:
    """`stored` under the network's names if only the names differ."""
    if stored.keys() != ours.keys() and len(stored) == len(ours):
        pairs = list(zip(ours, stored, strict=True))
        if all(_shapes(ours[a].weights) == _shapes(stored[b]) for a, b in pairs):
            return {a: stored[b] for a, b in pairs}
    return stored


def _check_fit(stored: Stored, ours: Mapping[str, Any], what: str) -> None:
    misfits = list(_misfits(stored, ours))
    if misfits:
        more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise TFRobustError(
            f"{what} in {len(misfits)} layers: {'; '.join(misfits[:_SHOWN])}{more}: choose a file "
            "of the same network and alpha."
        )


def _misfits(stored: Stored, ours: Mapping[str, Any]) -> Iterator[str]:
    for name, layer in ours.items():
        expected = _shapes(layer.weights)
        if name not in stored:
            yield f"{name} is missing from the file"
        elif _shapes(stored[name]) != expected:
            yield f"{name} expected {expected}, found {_shapes(stored[name])}"
    for name in stored:
        if name not in ours:
            yield f"{name} of the file is not in the network"


def _read(name: str, datasets: Sequence[Any], path: Path) -> list[np.ndarray]:
    arrays = [np.asarray(dataset) for dataset in datasets]
    if not all(np.isfinite(array).all() for array in arrays):
        raise TFRobustError(
            f"Weights {path}: expected finite numbers, found NaN or infinity in "
            f"{getattr(datasets[0], 'name', name)}: choose an earlier file."
        )
    return arrays
