"""Builders of torch's state dict files, in both of its formats, made without torch."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


def state_dict_of(model: Any, *, head: str = "fc") -> dict[str, np.ndarray]:
    """The weights of one of our ResNets as torchvision names and lays them out."""
    parts = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias",
             "moving_mean": "running_mean", "moving_variance": "running_var"}  # fmt: skip
    found = {}
    for layer in model.layers:
        name = head if layer.name == "logits" else layer.name
        for variable in layer.weights:
            part = parts[variable.name.rpartition("/")[2].removesuffix(":0")]
            value = variable.numpy()
            found[f"{name}.{part}"] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        if type(layer).__name__ == "BatchNormalization":
            found[f"{name}.num_batches_tracked"] = np.array(7)
    return found


class _Storage:
    def __init__(self, kind: type, key: str, array: np.ndarray) -> None:
        self.id = ("storage", kind, key, "cpu", array.size)


class _Tensor:
    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        steps = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
        self.args = (storage, 0, shape, steps, False, OrderedDict())

    def __reduce__(self) -> Any:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.args


class _Pickler(pickle.Pickler):
    legacy = False

    def persistent_id(self, one: Any) -> Any:
        if not isinstance(one, _Storage):
            return None
        return (*one.id, None) if self.legacy else one.id


@contextmanager
def _torch_s_names() -> Iterator[types.ModuleType]:
    """Names of torch, so that tensors can be pickled as torch does without it."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils", "_rebuild_tensor_v2",
    )  # fmt: skip
    inner._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": inner})
    try:
        yield torch
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def _pickled(arrays: Mapping[str, np.ndarray], legacy: bool, wrap: str | None) -> Any:
    """(pickle, storages by key) as torch makes them of a state dict."""
    file, storages = io.BytesIO(), {}
    content: OrderedDict[str, Any] = OrderedDict()
    with _torch_s_names() as torch:
        for key, (name, array) in enumerate(arrays.items()):
            dtype = "<f4" if array.dtype.kind == "f" else "<i8"
            kind = torch.FloatStorage if dtype == "<f4" else torch.LongStorage
            content[name] = _Tensor(_Storage(kind, str(key), array), array.shape)
            storages[str(key)] = (array.size, np.ascontiguousarray(array, dtype).tobytes())
        content._metadata = OrderedDict()  # type: ignore[attr-defined]  # as torch adds it
        pickler = _Pickler(file, 2)
        pickler.legacy = legacy
        pickler.dump({wrap: content, "epoch": 3} if wrap else content)
    return file.getvalue(), storages


def save(path: Path, arrays: Mapping[str, np.ndarray], *, wrap: str | None = None) -> Path:
    """A state dict in torch's zip format; in a checkpoint under the key `wrap`, if any."""
    data, storages = _pickled(arrays, False, wrap)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", data)
        archive.writestr("net/byteorder", "little")
        for key, (_, content) in storages.items():
            archive.writestr(f"net/data/{key}", content)
    return path


def save_legacy(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """The same in the format before zip: pickles, then each storage after its length."""
    data, storages = _pickled(arrays, True, None)
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    with open(path, "wb") as file:
        for one in (MAGIC, 1001, machine):
            pickle.dump(one, file, 2)
        file.write(data)
        pickle.dump(sorted(storages), file, 2)
        for key in sorted(storages):
            size, content = storages[key]
            file.write(struct.pack("<q", size) + content)
    return path
