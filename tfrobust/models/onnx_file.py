"""ONNX files: checked, rejected if unsafe, and run by onnxruntime."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.models import heads
from tfrobust.models.ends import Ends
from tfrobust.models.file_errors import not_taken, unreadable

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# Operations of ONNX itself and of onnxruntime, which runs quantised models by its own.
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
# Loads a program for a device from a file.
_REFUSED = ("EPContext",)
_PASSING = (
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Cast",
    "QuantizeLinear",
    "DequantizeLinear",
    "Transpose",
)
_ACTIVATIONS = {
    "Softmax": heads.SOFTMAX,
    "Sigmoid": heads.SIGMOID,
    "Tanh": heads.TANH,
    "LogSoftmax": "",
    "QLinearSoftmax": heads.SOFTMAX,
    "QLinearSigmoid": heads.SIGMOID,
}
_SUMS = (
    "Gemm",
    "MatMul",
    "Conv",
    "Add",
    "Sub",
    "GlobalAveragePool",
    "AveragePool",
    "ReduceMean",
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "QLinearAdd",
    "ConvInteger",
    "Mul",
)
# Operations that an image may pass before the first one that shows its layout.
_POINTWISE = (
    "Mul",
    "Add",
    "Sub",
    "Div",
    "Cast",
    "Identity",
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Pad",
    "Clip",
)


class ONNXFile:
    """An `.onnx` file on the processor.

    Args:
      path: the file.

    Attributes:
      name: of the runtime, in reports.
      ends: its input and output.
      further_files: those in its folder with its weights.

    Raises:
      TFRobustError: it is broken, has custom operations, reads files outside of its folder, has
        several inputs or outputs, or a package is missing.
    """

    name = "ONNX"

    def __init__(self, path: Path) -> None:
        self._path = path
        onnxruntime, proto = _package("onnxruntime", path), _read(path)
        self.further_files = _refuse(path, proto)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        # It raises its own, undocumented classes.
        except Exception as error:
            raise _broken(path, error) from error
        self._input, self._output = self._one_each()
        self.ends = self._described(proto)

    def run(self, x: np.ndarray) -> np.ndarray:
        """Images as the file takes them -> its outputs as floats, a row for each.

        Raises:
          TFRobustError: it does not take so many, or images of that size.
        """
        try:
            found = self._session.run([self._output], {self._input.name: x})[0]
        except Exception as error:
            raise not_taken(self._path, x.shape, _without_path(error)) from error
        return np.atleast_1d(np.asarray(found)).astype(np.float32)

    def _one_each(self) -> tuple[Any, str]:
        """The one input, and the name of the output with the classes."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1:
            raise TFRobustError(
                f"Model {self._path} takes {len(inputs)} inputs "
                f"({', '.join(one.name for one in inputs)}): expected images alone."
            )
        names = [one.name for one in outputs]
        chosen = names if len(names) == 1 else [name for name in names if name == "logits"]
        if len(chosen) != 1:
            raise TFRobustError(
                f"Model {self._path} has several outputs ({', '.join(names)}): expected one, or "
                "one named 'logits'; export a model of that output alone."
            )
        return inputs[0], chosen[0]

    def _described(self, proto: ModelProto) -> Ends:
        shape = tuple(
            size if isinstance(size, int) and size > 0 else None for size in self._input.shape or ()
        )
        kind = str(self._input.type).removeprefix("tensor(").removesuffix(")")
        names = {"float": "float32", "double": "float64", "float16": "float16"}
        try:
            dtype = np.dtype(names.get(kind, kind))
        except TypeError:  # texts, sequences
            dtype = np.dtype(object)
        activation = _activation(proto.graph, self._output)
        return Ends(
            shape,
            dtype,
            activation=activation,
            channels_first=_channels_first(proto.graph, self._input.name),
        )


def _package(name: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TFRobustError(
            f"{path} needs the package {error.name or name}: pip install 'tfrobust[portable]' "
            "-c constraints.txt."
        ) from error


def _read(path: Path) -> ModelProto:
    """The file as a protocol buffer, without data in other files."""
    onnx = _package("onnx", path)
    try:
        proto: ModelProto = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:
        raise _broken(path, error) from error
    if not proto.graph.node:
        raise _broken(path, "it has no graph")
    return proto


def _refuse(path: Path, proto: ModelProto) -> tuple[Path, ...]:
    """Rejects custom operations, and data in files outside of the model's folder.

    Returns:
      The files in its folder that contain data.

    Raises:
      TFRobustError: there is one.
    """
    own = {(one.domain, one.name) for one in proto.functions}
    custom = sorted(
        {
            f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            for node in _nodes(proto)
            if (node.domain not in _DOMAINS and (node.domain, node.op_type) not in own)
            or node.op_type in _REFUSED
        }
    )
    if custom:
        raise TFRobustError(
            f"Model {path} is rejected: it has custom operations ({', '.join(custom[:5])}), which "
            "run code outside of onnxruntime: export it with ONNX's own operations only."
        )
    external = [
        one for one in _tensors(proto) if one.external_data or one.data_location == one.EXTERNAL
    ]
    places = {
        pair.value for one in external for pair in one.external_data if pair.key == "location"
    }
    if external and not places:
        raise _broken(path, "it stores weights in a file that it does not name")
    return tuple(_inside(path, place) for place in sorted(places))


def _inside(path: Path, location: str) -> Path:
    """A file of weights in the model's folder.

    Raises:
      TFRobustError: it is outside of it, or not there.
    """
    folder, parts = path.parent.resolve(), PurePosixPath(location.replace("\\", "/")).parts
    target = (folder / location).resolve()
    inside = parts and ".." not in parts and not PurePosixPath(location).is_absolute()
    if not inside or ":" in parts[0] or folder not in target.parents:
        raise TFRobustError(
            f"Model {path} is rejected: it reads its weights from {location!r}, outside of its "
            "folder; if you trust it, save it again as one file."
        )
    if not target.is_file():
        raise TFRobustError(
            f"Model {path} stores weights in {location!r}, which does not exist: copy that file "
            "to its folder."
        )
    return target


def _graphs(proto: ModelProto) -> Iterator[GraphProto]:
    """The graph, and the graphs inside its operations and functions."""
    waiting = [proto.graph]
    inner = [node for function in proto.functions for node in function.node]
    while waiting or inner:
        graph = waiting.pop() if waiting else None
        if graph is not None:
            yield graph
        for node in [*inner, *(graph.node if graph is not None else ())]:
            for one in node.attribute:
                waiting += [*one.graphs, *([one.g] if one.HasField("g") else ())]
        inner = []


def _nodes(proto: ModelProto) -> Iterator[NodeProto]:
    for function in proto.functions:
        yield from function.node
    for graph in _graphs(proto):
        yield from graph.node


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that a file contains or refers to."""
    for graph in _graphs(proto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for attribute in (one for node in _nodes(proto) for one in node.attribute):
        yield from attribute.tensors
        if attribute.HasField("t"):
            yield attribute.t
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)
        if attribute.HasField("sparse_tensor"):
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _activation(graph: GraphProto, name: str) -> str | None:
    """The last activation of a graph: '' for logits, None if unknown."""
    made_by = {output: node for node in graph.node for output in node.output}
    for _ in range(len(graph.node)):
        node = made_by.get(name)
        if node is None:
            return None
        if node.op_type not in _PASSING:
            return "" if node.op_type in _SUMS else _ACTIVATIONS.get(node.op_type)
        name = node.input[0]
    return None


def _channels_first(graph: GraphProto, name: str) -> bool | None:
    """Whether the first operation that depends on it takes [C, H, W], as all of ONNX's do."""
    for _ in range(len(graph.node)):
        users = [node for node in graph.node if name in node.input]
        if not users:
            return None
        if users[0].op_type == "Transpose":
            order = [list(one.ints) for one in users[0].attribute if one.name == "perm"]
            return order != [[0, 3, 1, 2]]
        if users[0].op_type not in _POINTWISE:
            return users[0].op_type not in ("Reshape", "Flatten", "MatMul", "Gemm") or None
        name = users[0].output[0]
    return None


def _broken(path: Path, why: Exception | str) -> TFRobustError:
    expected = "a complete .onnx file of a supported version; export or copy it again"
    return unreadable(path, "onnxruntime", _without_path(why), expected)


def _without_path(why: Exception | str) -> str:
    """An error without the path, which onnxruntime repeats before 'failed:'."""
    return str(why).rpartition("failed:")[2].strip() or type(why).__name__
