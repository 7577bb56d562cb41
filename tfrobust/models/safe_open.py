"""Model files from strangers: checked before Keras reads them, and rejected if they have code.

Keras's own safe mode has been passed by many ways (CVE-2024-3660, CVE-2025-1550, -8747, -9905,
-9906, -12058, -12060). So nothing is opened but what is known to be harmless: layers, and the
functions that they are made with. A file that would run code, read, write or fetch another
file, or unpack outside of its folder, is rejected before Keras sees it.
"""

from __future__ import annotations

import builtins
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from tfrobust.errors import TFRobustError
from tfrobust.typing import Json

if TYPE_CHECKING:
    import h5py

# The rooms of either Keras that a configuration may name classes and functions of.
_ROOMS = (
    "layers",
    "models",
    "engine",
    "activations",
    "initializers",
    "regularizers",
    "constraints",
    "losses",
    "metrics",
    "optimizers",
    "optimizer",
    "dtype_policies",
    "mixed_precision",
    "ops",
    "applications",
)
_LIBRARIES = ("keras", "keras.src", "tf_keras", "tf_keras.src", "keras.api", "tf_keras.api")
# Layers that run, load or fetch anything they are given.
_LAYERS = (
    "Lambda",
    "__lambda__",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "__typespec__",
)
# Layers that read the words that they know from a path, where they are given one.
_VOCABULARIES = ("StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization")
# The functions of TensorFlow that a graph may have as layers: no files, queues or Python.
_FUNCTIONS = (
    "math",
    "nn",
    "__operators__",
    "linalg",
    "image",
    "signal",
    "cast",
    "reshape",
    "concat",
    "stack",
    "unstack",
    "split",
    "squeeze",
    "expand_dims",
    "transpose",
    "reverse",
    "pad",
    "tile",
    "repeat",
    "gather",
    "gather_nd",
    "where",
    "identity",
    "shape",
    "rank",
    "size",
    "slice",
    "strided_slice",
    "zeros_like",
    "ones_like",
    "zeros",
    "ones",
    "fill",
    "constant",
    "range",
    "clip_by_value",
    "maximum",
    "minimum",
    "abs",
    "sqrt",
    "square",
    "pow",
    "exp",
    "round",
    "sign",
    "floor",
    "ceil",
    "tanh",
    "sigmoid",
    "add",
    "subtract",
    "multiply",
    "divide",
    "negative",
    "matmul",
    "tensordot",
    "einsum",
    "norm",
    "one_hot",
    "argmax",
    "argmin",
    "argsort",
    "sort",
    "equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "logical_and",
    "logical_or",
    "logical_not",
    "stop_gradient",
    "broadcast_to",
    "convert_to_tensor",
    "boolean_mask",
    "roll",
    "reduce_mean",
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce_all",
    "reduce_any",
    "keras.activations",
    "keras.backend.cast",
    "compat.v1.shape",
    "compat.v1.transpose",
    "compat.v1.squeeze",
    "compat.v1.nn",
    "compat.v1.gather",
    "compat.v1.image",
    "compat.v1.pad",
    "space_to_depth",
    "depth_to_space",
    "eye",
    "sin",
    "cos",
)
# Operations of a SavedModel's graph that reach outside of it.
_OPERATIONS = frozenset(
    {
        "ReadFile",
        "WriteFile",
        "MatchingFiles",
        "PyFunc",
        "PyFuncStateless",
        "EagerPyFunc",
        "TextLineReader",
        "TextLineReaderV2",
        "TFRecordReader",
        "TFRecordReaderV2",
        "WholeFileReader",
        "WholeFileReaderV2",
        "FixedLengthRecordReader",
        "TextLineDataset",
        "TFRecordDataset",
        "TFRecordDatasetV2",
        "InitializeTableFromTextFile",
        "LoadDataset",
        "SaveDataset",
        "PrintV2",
        "CreateSummaryFileWriter",
        "WriteSummary",
        "WriteGraphSummary",
        "RpcCall",
        "RpcClient",
        "XlaHostCompute",
        "CustomAggregator",
        "DebugIdentityV2",
        "DebugIdentityV3",
    }
)
# A configuration is text of a few megabytes at most, and weights hardly compress.
_MAX_CONFIGURATION = 64 << 20
_MAX_RATIO = 200
_RATIO_MATTERS = 64 << 20


def refuse_code(path: Path) -> None:
    """Refuses a Keras model file that would do anything but become a model when it is opened.

    Args:
      path: a .keras or .h5 file.

    Raises:
      TFRobustError: it carries code, names what is no layer of Keras or tfrobust, reads or
        fetches another file, or unpacks outside of its folder.
    """
    if zipfile.is_zipfile(path):
        _check_members(path)
    for entry in _entries(_configuration(path)):
        _check_entry(path, entry)
    _check_links(path)


def refuse_operations(folder: Path) -> None:
    """Rejects a SavedModel with operations that access files or Python.

    Args:
      folder: with saved_model.pb.

    Raises:
      TFRobustError: it has one.
    """
    found = sorted(_operations(folder) & _OPERATIONS)
    if found:
        raise TFRobustError(
            f"SavedModel {folder} is rejected: its graph has {', '.join(found)}, which reaches "
            "files or code outside of it; if you trust it, load it yourself and go through "
            "Python: tfrobust.evaluate(model, ...)."
        )


def _operations(folder: Path) -> set[str]:
    """The operations of all graphs of a SavedModel; empty if it cannot be parsed."""
    # The message is known to protobuf once TensorFlow is imported.
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    try:
        kind = descriptor_pool.Default().FindMessageTypeByName("tensorflow.SavedModel")
        saved: Any = message_factory.GetMessageClass(kind)()
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    except (DecodeError, KeyError, OSError):  # TensorFlow will raise an error of its own
        return set()
    found: set[str] = set()
    for graph in (meta.graph_def for meta in saved.meta_graphs):
        found.update(node.op for node in graph.node)
        for function in graph.library.function:
            found.update(node.op for node in function.node_def)
    return found


def _check_entry(path: Path, entry: dict[str, Json]) -> None:
    """Rejects a part of a configuration that names anything unsafe."""
    name, module, config = str(entry.get("class_name")), entry.get("module"), entry.get("config")
    if name in _LAYERS:
        what = "a Lambda layer" if "ambda" in name else f"the layer {name}"
        _refuse(path, f"carries code of its own ({what}), which opening it would run")
    if module is not None and not _is_trusted(str(module), name, config):
        shown = config if name == "function" else name
        _refuse(path, f"carries code of its own ({module}.{shown}), which opening it would run")
    if name in _VOCABULARIES and isinstance(config, dict):
        words = config.get("vocabulary")
        if isinstance(words, str) and words:
            _refuse(path, f"reads another file ({name} of {words!r})")
    if name in ("TFOpLambda", "SlicingOpLambda") and isinstance(config, dict):
        function = str(config.get("function", ""))
        if not any(f"{function}.".startswith(f"{known}.") for known in _FUNCTIONS):
            _refuse(path, f"calls a function of TensorFlow that is none of a network ({function})")


def _is_trusted(module: str, name: str, config: Json) -> bool:
    if module == "builtins":
        # Keras writes its own functions as built-in ones, such as 'relu'; Python's are others.
        return not hasattr(builtins, str(config)) and not hasattr(builtins, name)
    if f"{module}.".startswith("tfrobust.backbones."):
        return True
    if module == "tfrobust.training.robust":
        return name.startswith("Robust")
    if module in _LIBRARIES:
        # Only models are at the top level; functions such as get_file are in submodules.
        return name[:1].isupper()
    return any(
        f"{module}.".startswith(f"{library}.{room}.") for library in _LIBRARIES for room in _ROOMS
    )


def _refuse(path: Path, reason: str) -> NoReturn:
    raise TFRobustError(
        f"Model {path} {reason}: expected Keras's own layers; if you trust it, open it yourself "
        "and go through Python: tfrobust.evaluate(model, ...)."
    )


def _check_members(path: Path) -> None:
    """Rejects an archive whose members leave its folder, or unpack to far more than its size."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile):
        return  # Keras will raise an error of its own
    for info in members:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if not parts or ".." in parts or parts[0] in ("/", "\\") or ":" in parts[0]:
            _refuse(path, f"unpacks outside of its folder ({info.filename!r})")
    total = sum(info.file_size for info in members)
    if total > max(_RATIO_MATTERS, _MAX_RATIO * path.stat().st_size):
        _refuse(path, f"unpacks to {total:,} bytes, more than {_MAX_RATIO} times its size")


def _check_links(path: Path) -> None:
    """Rejects weights in another file: an HDF5 file may refer to any."""
    import h5py

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(".h5")]
                contents = [archive.read(name) for name in names]
            sources: Sequence[io.BytesIO | Path] = [io.BytesIO(content) for content in contents]
        else:
            sources = [path]
        for source in sources:
            with h5py.File(source, "r") as file:
                where = _outside(file)
            if where:
                _refuse(path, f"reads another file (its weights {where!r} are outside of it)")
    except (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile):
        return  # Keras will raise an error of its own


def _outside(group: h5py.Group) -> str:
    """The first name in an HDF5 group that refers to another file; '' if none does."""
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return str(name)
        if isinstance(link, h5py.SoftLink):
            continue  # stays in the file, or leads nowhere
        item = group[name]
        if isinstance(item, h5py.Group):
            if found := _outside(item):
                return f"{name}/{found}"
        elif item.external or item.is_virtual:
            return str(name)
    return ""


def keras_version(path: Path) -> str:
    """The version of Keras that wrote a model file; '' if the file does not say."""
    try:
        if zipfile.is_zipfile(path):
            return str(json.loads(_member(path, "metadata.json"))["keras_version"])
        return str(_attribute(path, "keras_version"))
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return ""


def _configuration(path: Path) -> Json:
    """The architecture as parsed JSON; None if there is none, and so nothing to run."""
    try:
        if zipfile.is_zipfile(path):
            found: Json = json.loads(_member(path, "config.json"))
        else:
            found = json.loads(_attribute(path, "model_config"))
        return found
    except (ValueError, RecursionError):
        _refuse(path, "has a configuration that cannot be read as JSON")
    except (OSError, KeyError, zipfile.BadZipFile):
        return None


def _member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(name).file_size > _MAX_CONFIGURATION:
            raise ValueError(f"{name} is too large")
        return archive.read(name)


def _attribute(path: Path, name: str) -> str:
    import h5py

    with h5py.File(path, "r") as file:
        value = file.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def _entries(node: Json) -> Iterator[dict[str, Json]]:
    """Every dict in a tree of dicts and lists."""
    todo = [node]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield item
            todo += item.values()
        elif isinstance(item, list):
            todo += item
