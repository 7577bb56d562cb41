"""Builders of data set files as torch writes them, sound and hostile, made without torch."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from PIL import Image

from tfrobust.data.torch_file import read
from tfrobust.data.types import RawData, ReadOptions


class TaskDataset:
    """As users write them; its name must never be imported by the reader."""

    def __init__(self, imgs: Any, labels: Any, **others: Any) -> None:
        self.__dict__.update(imgs=imgs, labels=labels, **others)

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("the reader made a real object")


class Evil:
    """Calls `function(*args)` when it is unpickled the usual way."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def save(folder: Path, content: Any, protocol: int = 2, **members: bytes) -> Path:
    """A file in torch's zip format; `content` is a pickle or what is to be pickled."""
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
    with zipfile.ZipFile(folder / "set.pt", "w") as archive:
        archive.writestr("set/data.pkl", data)
        archive.writestr("set/byteorder", "little")
        for name, member in members.items():
            archive.writestr(f"set/data/{name}", member)
    return folder / "set.pt"


def load(location: Path, **options: object) -> RawData:
    return read(location, ReadOptions(**options))  # type: ignore[arg-type]


def grey(value: int) -> Image.Image:
    return Image.new("L", (3, 2), value)


def two(**others: Any) -> TaskDataset:
    return TaskDataset([grey(1), grey(2)], [0, 1], **others)


class Storage:
    def __init__(self, kind: type, key: Any, numel: int) -> None:
        self.id = ("storage", kind, key, "cpu", numel)


class TorchPickler(pickle.Pickler):
    def persistent_id(self, one: Any) -> Any:
        return one.id if isinstance(one, Storage) else None


def tensor(storage: Storage, size: tuple[int, ...], steps: tuple[int, ...], first: int = 0) -> Evil:
    """What torch makes of a tensor; needs the fixture `fake_torch`."""
    rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
    return Evil(rebuild, storage, first, size, steps, False, OrderedDict())


def torch_pickle(content: Any) -> bytes:
    file = io.BytesIO()
    TorchPickler(file, 2).dump(content)
    return file.getvalue()
