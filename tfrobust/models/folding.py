"""BatchNorm and padding folded into convolutions: the same function, with cheaper gradients.

In inference mode BatchNorm is a fixed affine map, and a convolution followed by one is a
convolution with other weights. Zeros laid around images before a convolution are padding
of its own, and on images of one pixel it is a matrix product. Attacks, which need nothing
but input gradients in inference mode, run on the folded function; successes are verified
on the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tfrobust.backbones.grouped import GroupedConv2D, grouped_conv2d
from tfrobust.models.kinds import KerasGraph
from tfrobust.runtime import keras, tf
from tfrobust.typing import Tensor

Layer = Any


class _Folded(NamedTuple):
    """A convolution as it is run: kernel, bias, and whether it pads like 'SAME'."""

    kernel: Tensor
    shift: Tensor | None
    padded: bool


def fold(model: KerasGraph) -> Callable[[Tensor], Tensor]:
    """`model` in inference mode as a function of images, with BatchNorm and padding folded in.

    The weights are folded here, once, from their present values: called inside a
    `tf.function`, that is once each time it runs, before any loop that uses the result.

    Args:
      model: a classifier, float32 [B, H, W, 3] -> logits [B, K]. A model that is not a
        flat functional graph is run as it is.

    Returns:
      images -> float32 logits, equal to ``model(images, training=False)`` up to rounding.
    """
    if not _is_flat(model):
        return lambda x: tf.cast(model(x, training=False), tf.float32)
    norms, pads = _foldable(model), _paddings(model)
    weights = {conv.name: _weights(conv) for conv in pads}
    weights |= {conv.name: _folded_weights(conv, norm) for conv, norm in norms}
    padded = {conv.name for conv in pads}
    absorbed = {norm.name for _, norm in norms} | {pad.name for pad in pads.values()}
    convs = {name: _Folded(*each, name in padded) for name, each in weights.items()}

    def forward(x: Tensor) -> Tensor:
        values = {id(model.inputs[0]): x}
        for layer in model.layers:
            if layer.inbound_nodes and id(layer.output) not in values:
                values[id(layer.output)] = _run(layer, values, convs, absorbed)
        return tf.cast(values[id(model.outputs[0])], tf.float32)

    return forward


def _is_flat(model: KerasGraph) -> bool:
    """One input, one output, every layer used once and none of them a model."""
    if not getattr(model, "_is_graph_network", False):
        return False
    single = len(model.inputs) == 1 and len(model.outputs) == 1
    used_once = all(len(layer.inbound_nodes) <= 1 for layer in model.layers)
    return single and used_once and not any(isinstance(x, keras.Model) for x in model.layers)


def _foldable(model: KerasGraph) -> list[tuple[Layer, Layer]]:
    """(convolution, BatchNorm) pairs in which nothing else sees the convolution's output."""
    producers = {id(layer.output): layer for layer in model.layers}
    pairs = []
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization) and norm.axis in (-1, [3]):
            conv = producers.get(id(norm.input))
            if conv is not None and _is_linear(conv) and len(conv.outbound_nodes) == 1:
                pairs.append((conv, norm))
    return pairs


def _paddings(model: KerasGraph) -> dict[Layer, Layer]:
    """Convolution -> the layer of zeros before it, if it pads like 'SAME'.

    Other paddings are not folded: oneDNN has no gradient for them, and Eigen's takes up to a
    hundred times as long.
    """
    producers: dict[int, Layer] = {id(layer.output): layer for layer in model.layers}
    pads = {}
    for conv in (layer for layer in model.layers if _is_linear(layer)):
        pad: Layer = producers.get(id(conv.input))
        if type(pad) is keras.layers.ZeroPadding2D and len(pad.outbound_nodes) == 1:
            geometry = (pad.input_shape[1:3], conv.kernel_size, conv.strides, conv.dilation_rate)
            same = [_same(*each) for each in zip(*geometry, strict=True)]
            if conv.padding == "valid" and [tuple(sides) for sides in pad.padding] == same:
                pads[conv] = pad
    return pads


def _same(size: int | None, kernel: int, stride: int, dilation: int) -> tuple[int, int] | None:
    """The zeros that 'SAME' lays before and after."""
    if size is None:
        return None
    reach = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1
    total = max(reach - size, 0)
    return total // 2, total - total // 2


def _is_linear(layer: Layer) -> bool:
    # The exact classes: a subclass may do more than convolve.
    known = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, GroupedConv2D)
    return type(layer) in known and layer.activation is keras.activations.linear


def _folded_weights(conv: Layer, norm: Layer) -> tuple[Tensor, Tensor]:
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    scale = scale * norm.gamma if norm.scale else scale
    shift = -norm.moving_mean * scale
    shift = shift + norm.beta if norm.center else shift
    kernel, bias = _weights(conv)
    # A depthwise kernel is [h, w, channels, multiplier]; its outputs are channel by channel.
    shape = tf.shape(kernel)[2:] if _is_depthwise(conv) else [-1]
    shift = shift if bias is None else shift + tf.cast(bias, shift.dtype) * scale
    kernel = tf.cast(kernel, scale.dtype) * tf.reshape(scale, shape)
    return tf.cast(kernel, conv.compute_dtype), tf.cast(shift, conv.compute_dtype)


def _weights(conv: Layer) -> tuple[Tensor, Tensor | None]:
    kernel = conv.depthwise_kernel if _is_depthwise(conv) else conv.kernel
    return kernel, conv.bias if conv.use_bias else None


def _is_depthwise(conv: Layer) -> bool:
    return type(conv) is keras.layers.DepthwiseConv2D


def _run(
    layer: Layer, values: dict[int, Tensor], convs: dict[str, _Folded], absorbed: set[str]
) -> Tensor:
    if layer.name in absorbed:
        return values[id(layer.input)]
    if layer.name in convs:
        return _convolve(layer, values[id(layer.input)], convs[layer.name])
    node = layer.inbound_nodes[0]
    # Keras pops the value of a tensor from a list, once for each use as an argument.
    uses = len(node.keras_inputs)
    given = {str(id(tensor)): [values[id(tensor)]] * uses for tensor in node.keras_inputs}
    args, kwargs = node.map_arguments(given)
    return layer(*args, **kwargs)


def _convolve(layer: Layer, x: Tensor, folded: _Folded) -> Tensor:
    kernel, shift, padded = folded
    kernel = tf.cast(kernel, layer.compute_dtype)
    x = tf.cast(x, kernel.dtype)
    padding = "SAME" if padded else layer.padding.upper()
    if _is_depthwise(layer):
        strides = (1, *layer.strides, 1)
        y = tf.nn.depthwise_conv2d(x, kernel, strides, padding, dilations=layer.dilation_rate)
    elif x.shape[1:3] == (1, 1) and padding == "SAME" and layer.groups == 1:
        y = _on_one_pixel(x, kernel)
    elif layer.groups > 1:
        y = grouped_conv2d(x, kernel, layer.strides, padding, layer.dilation_rate)
    else:
        y = tf.nn.conv2d(x, kernel, layer.strides, padding, dilations=layer.dilation_rate)
    return y if shift is None else tf.nn.bias_add(y, tf.cast(shift, y.dtype))


def _on_one_pixel(x: Tensor, kernel: Tensor) -> Tensor:
    """The convolution of images of one pixel: all but one of the kernel's taps meet zeros."""
    height, width = kernel.shape[:2]
    tap = kernel[(height - 1) // 2, (width - 1) // 2]
    return (x[:, 0, 0] @ tap)[:, None, None]
