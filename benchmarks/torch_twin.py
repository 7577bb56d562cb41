"""A Keras classifier rebuilt in torch: the same layers and weights, for fair comparisons."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from tfrobust.errors import TFRobustError

Layer = Any
Tensor = Any


class Twin(NamedTuple):
    """A torch module and its image format.

    Attributes:
      module: float32 [B, 3, H, W] -> logits [B, K], in inference mode.
      flipped: whether it takes images rotated by 180 degrees, see `twin`.
    """

    module: Any
    flipped: bool

    def images(self, x: np.ndarray) -> Tensor:
        """Images [B, H, W, 3] in this module's format."""
        x = x[:, ::-1, ::-1] if self.flipped else x
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    def pixels(self, images: Tensor) -> np.ndarray:
        """The inverse: float32 [B, H, W, 3]."""
        x = images.detach().numpy().transpose(0, 2, 3, 1)
        return np.ascontiguousarray(x[:, ::-1, ::-1] if self.flipped else x)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """float32 [B, K] for images [B, H, W, 3]."""
        with torch.no_grad():
            return np.asarray(self.module(self.images(x)).numpy())


def twin(model: Any, x: np.ndarray, tolerance: float = 1e-3) -> Twin:
    """`model` in torch, with the paddings merged into the convolutions in torch's way.

    Keras pads a convolution of stride 2 at the bottom and right, torch on all sides. On images
    rotated by 180 degrees, with kernels rotated likewise, both are the same for even sides, so
    that the twin of MobileNetV2 costs the same as torchvision's: no padding layers.

    Args:
      model: flat functional classifier of Keras.
      x: images float32 [B, H, W, 3], on which the two are compared.
      tolerance: of the logits, relative to the largest one.

    Raises:
      TFRobustError: an unsupported layer, or logits that differ.
    """
    made = _Converter(model).convert()
    expected = np.asarray(model(x, training=False))
    error = float(np.abs(made.logits(x) - expected).max() / np.abs(expected).max())
    if not error <= tolerance:
        raise TFRobustError(
            f"{model.name}: expected the same logits in torch to {tolerance:g}, found a relative "
            f"difference of {error:.2g}: this network's layers cannot be converted."
        )
    return made


class _Rescale(nn.Module):
    def __init__(self, scale: Any, offset: Any) -> None:
        super().__init__()
        for name, value in (("scale", scale), ("offset", offset)):
            shaped = torch.tensor(np.asarray(value, np.float32).reshape(1, -1, 1, 1))
            self.register_buffer(name, shaped)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset


class _Converter:
    """Builds one torch graph, layer by layer."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph, self.root = model, fx.Graph(), nn.Module()
        self.nodes: dict[int, Any] = {id(model.inputs[0]): self.graph.placeholder("x")}
        # By tensor: zero padding that the next layer adds, and a bias that BatchNorm absorbs.
        self.pads: dict[int, tuple[int, int]] = {}
        self.biases: dict[int, np.ndarray] = {}
        self.flipped = any(self._asymmetric(layer) for layer in model.layers)

    def convert(self) -> Twin:
        """The whole network, layer by layer."""
        for layer in self.model.layers[1:]:
            inputs = [self.nodes[id(t)] for t in layer.inbound_nodes[0].keras_inputs]
            self.nodes[id(layer.output)] = self._convert(layer, inputs)
        self.graph.output(self.nodes[id(self.model.outputs[0])])
        return Twin(fx.GraphModule(self.root, self.graph).eval(), self.flipped)

    def _convert(self, layer: Layer, inputs: list[Any]) -> Any:
        kind = type(layer).__name__
        if kind == "ZeroPadding2D":
            self.pads[id(layer.output)] = layer.padding[0]
            return inputs[0]
        # In torch channels already come before pixels.
        if kind == "Dropout" or (kind == "Permute" and layer.dims == (3, 1, 2)):
            return inputs[0]
        if kind == "Add":
            return self.graph.call_function(operator.add, tuple(inputs))
        if kind == "GlobalAveragePooling2D":
            return self.graph.call_method("mean", (inputs[0], (2, 3)))
        if kind == "TFOpLambda" and layer.name.startswith("tf.reverse"):
            return self.graph.call_method("flip", (inputs[0], 1))
        if kind not in _MODULES:
            raise TFRobustError(f"{layer.name}: a layer {kind} cannot be converted to torch.")
        node = self._call(_MODULES[kind](self, layer), inputs[0])
        if kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
            node = self._activated(layer, node)
        return node

    def _call(self, module: nn.Module, node: Any) -> Any:
        name = f"layer{len(self.nodes)}_{len(list(self.root.children()))}"
        self.root.add_module(name, module)
        return self.graph.call_module(name, (node,))

    def _activated(self, layer: Layer, node: Any) -> Any:
        name = layer.activation.__name__
        return node if name == "linear" else self._call(_activation(name, True), node)

    def _asymmetric(self, layer: Layer) -> bool:
        kind = type(layer).__name__
        if kind == "ZeroPadding2D":
            return bool(layer.padding[0] == (0, 1))
        same = kind in ("Conv2D", "DepthwiseConv2D") and layer.padding == "same"
        return same and layer.strides[0] == 2 and layer.kernel_size[0] > 1

    def _padding(self, layer: Layer, size: int) -> int:
        if layer.padding == "same":
            return size // 2
        return max(self.pads.get(id(layer.input), (0, 0)))

    def conv(self, layer: Layer) -> nn.Module:
        """Conv2D or DepthwiseConv2D."""
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        kernel = (layer.depthwise_kernel if depthwise else layer.kernel).numpy()
        kernel = kernel[::-1, ::-1] if self.flipped else kernel
        weight = kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        bias = layer.bias.numpy() if layer.use_bias else None
        if bias is not None and self._followed_by_norm(layer):
            self.biases[id(layer.output)], bias = bias, None
        module = nn.Conv2d(
            kernel.shape[2], weight.shape[0], kernel.shape[0], layer.strides[0],
            self._padding(layer, kernel.shape[0]), bias=bias is not None,
            groups=kernel.shape[2] if depthwise else 1,
        )  # fmt: skip
        return _filled(module, weight=weight, bias=bias)

    def norm(self, layer: Layer) -> nn.Module:
        """BatchNormalization in inference mode."""
        mean = layer.moving_mean.numpy() - self.biases.get(id(layer.input), np.float32(0))
        module = nn.BatchNorm2d(len(mean), layer.epsilon)
        return _filled(
            module, running_mean=mean, running_var=layer.moving_variance.numpy(),
            weight=layer.gamma.numpy(), bias=layer.beta.numpy(),
        )  # fmt: skip

    def pool(self, layer: Layer) -> nn.Module:
        """MaxPooling2D of non-negative values."""
        size = layer.pool_size[0]
        return nn.MaxPool2d(size, layer.strides[0], self._padding(layer, size))

    def _followed_by_norm(self, layer: Layer) -> bool:
        after = [type(node.outbound_layer).__name__ for node in layer.outbound_nodes]
        return after == ["BatchNormalization"]


def _filled(module: nn.Module, **arrays: np.ndarray | None) -> nn.Module:
    with torch.no_grad():
        for name, array in arrays.items():
            if array is not None:
                getattr(module, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return module


def _dense(_: _Converter, layer: Layer) -> nn.Module:
    inputs, outputs = layer.kernel.shape
    weight, bias = layer.kernel.numpy().T, layer.bias.numpy()
    return _filled(nn.Linear(inputs, outputs), weight=weight, bias=bias)


def _activation(name: str, inplace: bool) -> nn.Module:
    known: dict[str, Callable[[bool], nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}
    if name not in known:
        raise TFRobustError(f"An activation {name!r} cannot be converted to torch.")
    return known[name](inplace)


def _relu(_: _Converter, layer: Layer) -> nn.Module:
    if layer.max_value not in (None, 6):
        raise TFRobustError(f"{layer.name}: a ReLU cut at {layer.max_value} cannot be converted.")
    return _activation("relu" if layer.max_value is None else "relu6", _overwrites(layer))


def _activation_layer(_: _Converter, layer: Layer) -> nn.Module:
    return _activation(layer.activation.__name__, _overwrites(layer))


def _overwrites(layer: Layer) -> bool:
    """Whether nothing else uses the input; torchvision's networks also work in place."""
    return len(layer.inbound_nodes[0].inbound_layers.outbound_nodes) == 1


_MODULES: dict[str, Callable[[_Converter, Layer], nn.Module]] = {
    "Conv2D": _Converter.conv,
    "DepthwiseConv2D": _Converter.conv,
    "BatchNormalization": _Converter.norm,
    "MaxPooling2D": _Converter.pool,
    "Dense": _dense,
    "ReLU": _relu,
    "Activation": _activation_layer,
    "Rescaling": lambda _, layer: _Rescale(layer.scale, layer.offset),
    "Flatten": lambda _, layer: nn.Flatten(),
}
