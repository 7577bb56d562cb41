"""A torch state dict as layers with weights in Keras's layout; nothing in the file is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.data.pickle_tree import Call, Global
from tfrobust.data.torch_archive import TorchArchive, kind
from tfrobust.data.torch_legacy import open_torch
from tfrobust.errors import TFRobustError

SUFFIXES = (".pth", ".pt")
# Torch's names of a layer's tensors, in Keras's order.
_PARTS = ("weight", "bias", "running_mean", "running_var")
# The number of batches that updated BatchNorm's statistics; Keras does not count them.
_COUNTER = "num_batches_tracked"
# The keys under which checkpoints store the state dict, beside the optimiser's and others.
_NESTED = ("state_dict", "model_state_dict", "model")
_PARALLEL = "module."


def read(path: Path) -> dict[str, list[np.ndarray]]:
    """The layers of a state dict, by their torch names, in the file's order.

    Kernels are converted to Keras's layout: [O, I, h, w] to [h, w, I, O], [O, I] to [I, O]. A
    checkpoint with the state dict under 'state_dict', 'model_state_dict' or 'model' is accepted
    too, and the prefix of torch's DataParallel is dropped.

    Args:
      path: a file of `torch.save(model.state_dict(), path)`, in torch's zip format or the
        earlier one.

    Raises:
      TFRobustError: the file is broken, is rejected, or contains something else.
    """
    with open_torch(path) as packed:
        archive = TorchArchive(
            path, packed, what="a state dict",
            advice="save only model.state_dict(), on the CPU and in float32",
        )  # fmt: skip
        layers: dict[str, dict[str, np.ndarray]] = {}
        for name, node in _state_dict(path, archive.tree).items():
            layer, _, part = str(name).removeprefix(_PARALLEL).rpartition(".")
            if part != _COUNTER:
                layers.setdefault(layer, {})[part] = _array(path, archive, name, node)
    return {layer: _ordered(path, layer, parts) for layer, parts in layers.items()}


def _state_dict(path: Path, tree: Any) -> Mapping[Any, Any]:
    found = _items(tree)
    for name in _NESTED:
        if found and name in found and _items(found[name]):
            found = _items(found[name])
    if not found:
        raise TFRobustError(
            f"Weights {path}: expected a state dict of named tensors, found a {kind(tree)}: "
            "save model.state_dict() rather than the model."
        )
    return found


def _items(node: Any) -> Mapping[Any, Any] | None:
    """The items of a dict, plain or ordered."""
    if isinstance(node, Call) and node.function == Global("collections", "OrderedDict"):
        return node.items
    return node if isinstance(node, dict) else None


def _array(path: Path, archive: TorchArchive, name: Any, node: Any) -> np.ndarray:
    try:
        return np.asarray(archive.value(node), np.float32)
    except Exception as error:
        cause = " ".join(str(error).split())[:150] or type(error).__name__
        raise TFRobustError(
            f"Weights {path}: expected a tensor as {str(name)[:80]!r}, found {cause}: save "
            "only model.state_dict(), on the CPU and in float32."
        ) from error


def _ordered(path: Path, layer: str, parts: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    unknown = [part for part in parts if part not in _PARTS]
    if unknown:
        raise TFRobustError(
            f"Weights {path}: expected layers of {', '.join(_PARTS)}, found {unknown[0][:80]!r} "
            f"in {layer[:80]!r}: choose the state dict of a supported network."
        )
    return [_turned(parts[part]) for part in _PARTS if part in parts]


def _turned(tensor: np.ndarray) -> np.ndarray:
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    return tensor.T
