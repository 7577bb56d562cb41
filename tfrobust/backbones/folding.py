"""BatchNorm folded into the convolution before it: the same function, with cheaper gradients.

In inference mode BatchNorm is a fixed affine map, and a convolution followed by one is a
convolution with other weights. Attacks, which need nothing but input gradients in
inference mode, run on the folded function; successes are verified on the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfrobust.runtime import keras, tf

Tensor = Any
Layer = Any


def fold(model: Any) -> Callable[[Tensor], Tensor]:
    """`model` in inference mode as a function of images, with BatchNorm folded away.

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
    norms = _foldable(model)
    weights = {conv.name: _folded_weights(conv, norm) for conv, norm in norms}
    absorbed = {norm.name for _, norm in norms}

    def forward(x: Tensor) -> Tensor:
        values = {id(model.inputs[0]): x}
        for layer in model.layers:
            if layer.inbound_nodes and id(layer.output) not in values:
                values[id(layer.output)] = _run(layer, values, weights, absorbed)
        return tf.cast(values[id(model.outputs[0])], tf.float32)

    return forward


def _is_flat(model: Any) -> bool:
    """One input, one output, every layer used once and none of them a model."""
    if not getattr(model, "_is_graph_network", False):
        return False
    single = len(model.inputs) == 1 and len(model.outputs) == 1
    used_once = all(len(layer.inbound_nodes) <= 1 for layer in model.layers)
    return single and used_once and not any(isinstance(x, keras.Model) for x in model.layers)


def _foldable(model: Any) -> list[tuple[Layer, Layer]]:
    """(convolution, BatchNorm) pairs in which nothing else sees the convolution's output."""
    producers = {id(layer.output): layer for layer in model.layers}
    pairs = []
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization) and norm.axis in (-1, [3]):
            conv = producers.get(id(norm.input))
            if conv is not None and _is_linear(conv) and len(conv.outbound_nodes) == 1:
                pairs.append((conv, norm))
    return pairs


def _is_linear(layer: Layer) -> bool:
    # The exact classes: a subclass may do more than convolve.
    known = type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return known and layer.activation is keras.activations.linear


def _folded_weights(conv: Layer, norm: Layer) -> tuple[Tensor, Tensor]:
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    scale = scale * norm.gamma if norm.scale else scale
    shift = -norm.moving_mean * scale
    shift = shift + norm.beta if norm.center else shift
    shift = shift + conv.bias * scale if conv.use_bias else shift
    depthwise = type(conv) is keras.layers.DepthwiseConv2D
    kernel = conv.depthwise_kernel if depthwise else conv.kernel
    # A depthwise kernel is [h, w, channels, multiplier]; its outputs are channel by channel.
    shape = tf.shape(kernel)[2:] if depthwise else [-1]
    dtype = conv.compute_dtype
    return tf.cast(kernel * tf.reshape(scale, shape), dtype), tf.cast(shift, dtype)


def _run(
    layer: Layer,
    values: dict[int, Tensor],
    weights: dict[str, tuple[Tensor, Tensor]],
    absorbed: set[str],
) -> Tensor:
    if layer.name in absorbed:
        return values[id(layer.input)]
    if layer.name in weights:
        return _convolve(layer, values[id(layer.input)], *weights[layer.name])
    node = layer.inbound_nodes[0]
    # Keras takes each tensor's value off a list, once for each time that it is an argument.
    uses = len(node.keras_inputs)
    given = {str(id(tensor)): [values[id(tensor)]] * uses for tensor in node.keras_inputs}
    args, kwargs = node.map_arguments(given)
    return layer(*args, **kwargs)


def _convolve(layer: Layer, x: Tensor, kernel: Tensor, shift: Tensor) -> Tensor:
    x = tf.cast(x, kernel.dtype)
    if type(layer) is keras.layers.Conv2D:
        return tf.nn.bias_add(layer.convolution_op(x, kernel), shift)
    y = tf.nn.depthwise_conv2d(
        x,
        kernel,
        strides=(1, *layer.strides, 1),
        padding=layer.padding.upper(),
        dilations=layer.dilation_rate,
    )
    return tf.nn.bias_add(y, shift)
