"""TensorFlow Lite files: checked, rejected if unsafe, and run."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.models import heads
from tfrobust.models.ends import Ends
from tfrobust.models.file_errors import not_taken, unreadable
from tfrobust.runtime import tf

# Numbers of TensorFlow Lite's schema.
_CUSTOM = (32, 173)  # its own, and those of StableHLO
_PASSING = (114, 6, 22, 43, 53)  # quantize, dequantize, reshape, squeeze, cast
_ACTIVATIONS = {25: heads.SOFTMAX, 14: heads.SIGMOID, 28: heads.TANH, 50: ""}
# Operations that end in a sum: add, pools, convolutions, dense, mul, mean, sub, batch matmul.
_SUMS = (0, 1, 3, 4, 9, 17, 18, 40, 41, 126)
# The most elements of a tensor.
_MOST_ELEMENTS = 1 << 31


class TFLiteFile:
    """A `.tflite` file with TensorFlow's own interpreter.

    Args:
      path: the file.

    Attributes:
      name: of the runtime, in reports.
      ends: its input and output.
      further_files: none.

    Raises:
      TFRobustError: it is broken, has custom operations, oversized tensors, or several inputs or
        outputs.
    """

    name = "TensorFlow Lite"
    further_files: tuple[Path, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes()
        activation = _read(path, content)
        try:
            self._interpreter = _interpreter(content)
            self._interpreter.allocate_tensors()
            self._input, self._output = self._one_each()
        except TFRobustError:
            raise
        # A broken buffer may raise anything, such as a SystemError.
        except Exception as error:
            raise _broken(path, error) from error
        self.ends = self._described(activation)
        self._size: tuple[int, ...] = ()

    def run(self, x: np.ndarray) -> np.ndarray:
        """Images as the file takes them -> its outputs as floats, a row for each.

        Raises:
          TFRobustError: it does not take so many, or images of that size.
        """
        try:
            if x.shape != self._size:
                self._interpreter.resize_tensor_input(self._input["index"], x.shape)
                self._interpreter.allocate_tensors()
                self._size = x.shape
            self._interpreter.set_tensor(self._input["index"], x)
            self._interpreter.invoke()
            found = np.asarray(self._interpreter.get_tensor(self._output["index"]))
        except Exception as error:
            self._size = ()
            raise not_taken(self._path, x.shape, error) from error
        scale, zero = self._output["quantization"]
        return (found.astype(np.float32) - zero) * scale if scale else found.astype(np.float32)

    def _one_each(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The details of the one input and of the output with the classes."""
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1:
            raise TFRobustError(
                f"Model {self._path} takes {len(inputs)} inputs "
                f"({', '.join(one['name'] for one in inputs)}): expected images alone."
            )
        if len(outputs) == 1:
            return inputs[0], outputs[0]
        named = [one for one in outputs if "logits" in one["name"]]
        if len(named) != 1:
            raise TFRobustError(
                f"Model {self._path} has several outputs "
                f"({', '.join(one['name'] for one in outputs)}): expected one, or one named "
                "'logits'; convert a model of that output alone."
            )
        return inputs[0], named[0]

    def _described(self, activation: str | None) -> Ends:
        one, other = self._input, self._output
        signature = one.get("shape_signature", one["shape"])
        # A batch of 1 is what converters write where any will do: it is tried.
        shape = tuple(None if size < 0 else int(size) for size in signature)
        scale, zero = one["quantization"]
        whole = np.dtype(other["dtype"]).kind != "f"
        return Ends(
            (None if shape[:1] == (1,) else shape[0], *shape[1:]) if shape else shape,
            np.dtype(one["dtype"]),
            float(scale),
            int(zero),
            activation,
            output_step=float(other["quantization"][0]) if whole else 0.0,
        )


def _interpreter(content: bytes) -> Any:
    with warnings.catch_warnings():
        # TensorFlow warns that a later version removes it.
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
        return tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count() or 1)


def _read(path: Path, content: bytes) -> str | None:
    """The last activation of the graph, after checking that the file is safe.

    Raises:
      TFRobustError: it is not such a file, or is unsafe.
    """
    if content[4:8] != b"TFL3":
        raise _broken(path, "its first bytes are of another format")
    schema = importlib.import_module("tensorflow.lite.python.schema_py_generated")
    # Reading a broken buffer may raise anything.
    try:
        model = schema.Model.GetRootAs(content, 0)
        codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
        numbers = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
        custom = [
            (code.CustomCode() or b"?").decode(errors="replace")
            for code, number in zip(codes, numbers, strict=True)
            if number in _CUSTOM or code.CustomCode()
        ]
        largest = _largest_tensor(model)
        activation = _activation(model.Subgraphs(0), numbers)
    except Exception as error:
        raise _broken(path, error) from error
    if custom:
        raise TFRobustError(
            f"Model {path} is rejected: it has custom operations ({', '.join(custom[:5])}), which "
            "run code outside of TensorFlow Lite: convert it with built-in operations only."
        )
    if largest > _MOST_ELEMENTS:
        raise TFRobustError(
            f"Model {path} is rejected: one of its tensors has {largest:,} elements, expected at "
            f"most {_MOST_ELEMENTS:,}."
        )
    return activation


def _largest_tensor(model: Any) -> int:
    largest = 0
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
            sizes = [abs(int(tensor.Shape(i))) for i in range(tensor.ShapeLength())]
            elements = 1
            for size in sizes:
                elements *= size
            largest = max(largest, elements)
    return largest


def _activation(graph: Any, numbers: list[int]) -> str | None:
    """The last activation of a graph of one output: '' for logits, None if unknown."""
    if graph.OutputsLength() != 1:
        return None
    tensor = graph.Outputs(0)
    for place in reversed(range(graph.OperatorsLength())):
        operator = graph.Operators(place)
        if tensor not in [operator.Outputs(i) for i in range(operator.OutputsLength())]:
            continue
        number = numbers[operator.OpcodeIndex()]
        if number not in _PASSING:
            return "" if number in _SUMS else _ACTIVATIONS.get(number)
        tensor = operator.Inputs(0)
    return None


def _broken(path: Path, why: Exception | str) -> TFRobustError:
    expected = "a complete .tflite file; convert or copy it again"
    return unreadable(path, "TensorFlow Lite", why, expected)
