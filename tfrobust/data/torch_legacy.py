"""Files of `torch.save` in both of its formats: the zip, and the pickles before it.

Until torch 1.6 a file was five pickles (a magic number, a version, the writer's machine, the
object, the keys of its storages), then each storage: its length, then its bytes. Here that is
repacked in the zip format; nothing in it is executed.
"""

from __future__ import annotations

import io
import os
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrobust.data.archives import open_zip
from tfrobust.data.pickle_tree import Call, Global, Persistent, Record, UnsafePickleError, parse
from tfrobust.data.torch_archive import CALLS, storage_type
from tfrobust.errors import TFRobustError

_MAGIC = 0x1950A86A20F9469CFC6C


def open_torch(location: Path) -> zipfile.ZipFile:
    """A file of `torch.save`, in either format, opened in its zip format.

    Raises:
      TFRobustError: the file cannot be read, is rejected, or has neither format.
    """
    try:
        with open(location, "rb") as file:
            if file.read(2) == b"PK":
                return open_zip(location)
            file.seek(0)
            return zipfile.ZipFile(_packed(file))
    except OSError as error:
        raise TFRobustError(
            f"{location} cannot be read ({error.strerror}): check its path and permissions."
        ) from error
    except UnsafePickleError as error:
        raise TFRobustError(
            f"{location} is rejected because it refers to {error}, which is not on the list of "
            "allowed names: save it with a current torch, or do not trust this file."
        ) from error
    # Broken pickles, inconsistent lengths, unknown storages.
    except (ValueError, struct.error, AttributeError, TypeError, KeyError) as error:
        cause = " ".join(str(error).split())[:100]
        raise TFRobustError(
            f"{location} cannot be read as a file of torch.save ({cause}): it may be truncated or "
            "of another kind, so fetch or save it again."
        ) from error


def _packed(file: Any) -> io.BytesIO:
    """The legacy file at `file`, repacked as a zip without compression."""
    if parse(_pickle(file), ()) != _MAGIC:
        raise ValueError("its magic number is missing")
    parse(_pickle(file), ())
    machine = parse(_pickle(file), ())
    order = "little" if machine["little_endian"] else "big"
    content = _pickle(file)
    kinds = dict(_storages(parse(content, CALLS)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", order)
        for key in parse(_pickle(file), ()):
            archive.writestr(f"archive/data/{key}", _storage(file, kinds[key].itemsize, order))
    return packed


def _pickle(file: Any) -> bytes:
    """The next pickle's bytes; the file position is after it."""
    start = file.tell()
    for _ in pickletools.genops(file):
        pass
    end = file.tell()
    file.seek(start)
    content: bytes = file.read(end - start)
    return content


def _storage(file: Any, itemsize: int, order: str) -> bytes:
    length = struct.unpack("<q" if order == "little" else ">q", file.read(8))[0] * itemsize
    left = os.fstat(file.fileno()).st_size - file.tell()
    if not 0 <= length <= left:
        raise ValueError(f"a storage of {length} bytes where {left} are left")
    content: bytes = file.read(length)
    return content


def _storages(tree: Any) -> Iterator[tuple[str, Any]]:
    """(key, number type) of each storage that the tree refers to."""
    todo, seen = [tree], set()
    while todo:
        node = todo.pop()
        if id(node) in seen:  # a pickle may contain a list that contains itself
            continue
        seen.add(id(node))
        if isinstance(node, Persistent):
            tag, kind, key = node.id[:3]
            if tag != "storage" or not isinstance(kind, Global) or type(key) is not str:
                raise ValueError("a tensor without a storage")
            yield key, storage_type(kind)
        elif isinstance(node, Call):
            todo += [*node.args, node.state, *node.items.values()]
        elif isinstance(node, Record):
            todo.append(node.state)
        elif isinstance(node, dict):
            todo += node.values()
        elif isinstance(node, list | tuple):
            todo += node
