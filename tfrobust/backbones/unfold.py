"""A 2-D convolution by unfolding: patches become rows, and one matrix product does the rest.

Each output pixel depends on a patch of the image. Arranged as rows of a matrix, the patches are
multiplied with the kernel in one product; the gradients are two more products, and the image's
gradient is the rows folded back: each pixel sums the values of the patches that contain it.
Chellapilla et al., "High Performance Convolutional Neural Networks for Document
Processing", https://inria.hal.science/inria-00112631.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tfrobust.errors import UsageError
from tfrobust.runtime import keras, tf
from tfrobust.typing import Tensor

Pair = tuple[int, int]


class _Side(NamedTuple):
    """The layout of the patches along one axis of the image, in pixels."""

    axis: int
    size: int
    taps: int  # of the kernel
    stride: int
    dilation: int
    before: int  # zeros before the image
    padded: int  # its size including all padding
    patches: int  # number of patches


def unfold_conv2d(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    strides: Pair = (1, 1),
    padding: str = "same",
    dilations: Pair = (1, 1),
) -> Tensor:
    """The convolution of `tf.nn.conv2d` plus a bias, with gradients for all three.

    It can be differentiated twice: the gradients consist of TensorFlow's own operations.

    Args:
      x: [B, H, W, C], with static H, W and C.
      kernel: [h, w, C, O].
      bias: [O], or None.
      strides: of rows and columns.
      padding: 'same' or 'valid'.
      dilations: of rows and columns.

    Returns:
      [B, H', W', O].

    Raises:
      UsageError: a size of the image is unknown, or the kernel is larger than the image.
    """
    height, width, channels, outputs = kernel.shape
    sides = _sides(x.shape, (height, width), strides, padding, dilations)

    @tf.custom_gradient
    def convolve(*inputs: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        rows = _unfold(inputs[0], sides)
        # In the order of `rows`: columns of the kernel, rows, channels.
        matrix = tf.reshape(tf.transpose(inputs[1], (1, 0, 2, 3)), (-1, outputs))
        y = tf.matmul(rows, matrix)
        y = y + inputs[2] if len(inputs) == 3 else y

        def gradients(upstream: Tensor) -> tuple[Tensor, ...]:
            upstream = tf.reshape(upstream, (-1, outputs))
            of_image = _fold(tf.matmul(upstream, matrix, transpose_b=True), sides)
            of_matrix = tf.matmul(rows, upstream, transpose_a=True)
            of_kernel = tf.reshape(of_matrix, (width, height, channels, outputs))
            of_kernel = tf.transpose(of_kernel, (1, 0, 2, 3))
            return (of_image, of_kernel, tf.reduce_sum(upstream, 0))[: len(inputs)]

        return tf.reshape(y, (-1, sides[0].patches, sides[1].patches, outputs)), gradients

    return convolve(x, kernel) if bias is None else convolve(x, kernel, bias)


def _sides(
    image: Any, kernel: Pair, strides: Pair, padding: str, dilations: Pair
) -> tuple[_Side, _Side]:
    if None in image[1:]:
        raise UsageError(
            f"A convolution by unfolding: expected images of a static size, found {tuple(image)}: "
            "give the network's input a height and a width."
        )
    rows, columns = (
        _side(axis, image[axis], kernel[axis - 1], strides[axis - 1], dilations[axis - 1], padding)
        for axis in (1, 2)
    )
    if min(rows.patches, columns.patches) < 1:
        raise UsageError(
            f"A convolution by unfolding: expected a kernel within the image, found one of "
            f"{kernel} on {tuple(image[1:3])}: choose padding 'same' or larger images."
        )
    return rows, columns


def _side(axis: int, size: int, taps: int, stride: int, dilation: int, padding: str) -> _Side:
    reach = (taps - 1) * dilation + 1
    patches = (size - reach) // stride + 1 if padding == "valid" else -(-size // stride)
    zeros = max((patches - 1) * stride + reach - size, 0) if padding == "same" else 0
    return _Side(axis, size, taps, stride, dilation, zeros // 2, size + zeros, patches)


def _unfold(x: Tensor, sides: tuple[_Side, _Side]) -> Tensor:
    """[B, H, W, C] -> the patches, [B * H' * W', w * h * C].

    First vertically, then horizontally: fewer and longer copies than tap by tap.
    """
    zeros = [(side.before, side.padded - side.size - side.before) for side in sides]
    x = tf.pad(x, [(0, 0), *zeros, (0, 0)])
    for side in sides:
        x = tf.concat([_seen(x, side, tap) for tap in range(side.taps)], -1)
    return tf.reshape(x, (-1, x.shape[-1]))


def _seen(x: Tensor, side: _Side, tap: int) -> Tensor:
    """The values of each patch at one tap."""
    first = tap * side.dilation
    window = slice(first, first + (side.patches - 1) * side.stride + 1, side.stride)
    return x[:, window] if side.axis == 1 else x[:, :, window]


def _fold(rows: Tensor, sides: tuple[_Side, _Side]) -> Tensor:
    """Patches [B * H' * W', w * h * C] -> [B, H, W, C], overlaps summed."""
    down, right = sides
    x = tf.reshape(rows, (-1, down.patches, right.patches, rows.shape[-1]))
    for side in (right, down):
        x = _summed(tf.split(x, side.taps, -1), side)
    top, left = down.before, right.before
    return x[:, top : top + down.size, left : left + right.size]


def _summed(parts: list[Tensor], side: _Side) -> Tensor:
    """Each tap's part added where it was read, along one axis.

    Positions with the same remainder modulo the stride are summed on a separate canvas, on which
    patches are adjacent; the canvases are interleaved at the end.
    """
    length = -(-side.padded // side.stride)
    canvases: list[list[Tensor]] = [[] for _ in range(side.stride)]
    for tap, part in enumerate(parts):
        start, remainder = divmod(tap * side.dilation, side.stride)
        zeros = [(0, 0)] * 4
        zeros[side.axis] = (start, length - start - side.patches)
        canvases[remainder].append(tf.pad(part, zeros))
    empty = tf.zeros_like(canvases[0][0])
    sums = [tf.add_n(canvas) if canvas else empty for canvas in canvases]
    if len(sums) == 1:
        return sums[0]
    shape = list(sums[0].shape[1:])
    shape[side.axis - 1] *= side.stride
    return tf.reshape(tf.stack(sums, side.axis + 1), (-1, *shape))


@keras.utils.register_keras_serializable(package="tfrobust")
class UnfoldConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` by `unfold_conv2d`, with its own forward and backward pass.

    Images [B, H, W, C] -> [B, H', W', filters]; the arguments and variables of Conv2D. Supports
    one group, channels last.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates kernel and bias.

        Raises:
          UsageError: more than one group, or channels first.
        """
        if self.groups != 1 or self.data_format != "channels_last":
            raise UsageError(
                f"UnfoldConv2D: expected one group and channels last, found {self.groups} and "
                f"{self.data_format}: use keras.layers.Conv2D."
            )
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        """The convolution, plus the bias, followed by the activation."""
        y = unfold_conv2d(
            inputs,
            tf.convert_to_tensor(self.kernel),
            tf.convert_to_tensor(self.bias) if self.use_bias else None,
            strides=self.strides,
            padding=self.padding,
            dilations=self.dilation_rate,
        )
        return self.activation(y) if self.activation is not None else y
