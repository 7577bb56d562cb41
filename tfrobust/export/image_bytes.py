"""Decoding inside the served graph: encoded images in, the pixels that training saw out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tfrobust.runtime import tf

#: The most pixels (width x height) that an image sent as bytes may claim to have.
MAX_PIXELS = 64_000_000
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
# EXIF's orientation tag with its type and count, in both byte orders; the value follows.
_ORIENTATION = (b"\x12\x01\x03\x00\x01\x00\x00\x00", b"\x01\x12\x00\x03\x00\x00\x00\x01\x00")


def assert_some(batch: tf.Tensor, name: str) -> tf.Operation:
    """Fails in the graph, with one sentence, where a batch holds nothing."""
    message = f"{name}: expected at least one image, found an empty batch."
    return tf.debugging.Assert(tf.shape(batch)[0] > 0, [message])


def decode(image_bytes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Encoded images, string [N] -> float32 [N, height, width, 3] in [0, 1]."""
    start = tf.strings.substr(image_bytes, 0, len(_PNG))
    is_png = tf.equal(start, _PNG)
    known = tf.logical_or(is_png, tf.equal(tf.strings.substr(start, 0, len(_JPEG)), _JPEG))
    message = "image_bytes: expected JPEG or PNG, found other data (position, first bytes):"
    # Bytes that are no text would break the error message itself.
    readable = tf.strings.unicode_transcode(
        start, "UTF-8", "UTF-8", replacement_char=ord("?"), replace_control_characters=True
    )
    unknown = [tf.where(~known)[:, 0], tf.boolean_mask(readable, ~known)]
    checks = [
        assert_some(image_bytes, "image_bytes"),
        tf.debugging.Assert(tf.reduce_all(known), [message, *unknown]),
    ]
    with tf.control_dependencies(checks):
        pixels = tf.map_fn(
            lambda item: _resize(_upright(*item), height, width),
            (tf.identity(image_bytes), is_png),
            fn_output_signature=tf.TensorSpec([height, width, 3], tf.uint8),
        )
    return tf.image.convert_image_dtype(pixels, tf.float32)


def _upright(data: tf.Tensor, is_png: tf.Tensor) -> tf.Tensor:
    """One encoded image -> float32 [h, w, 3] in 0..255, turned by its EXIF orientation."""
    size = tf.cond(is_png, lambda: _png_size(data), lambda: tf.io.extract_jpeg_shape(data)[:2])
    claimed = tf.reduce_prod(tf.cast(size, tf.int64))
    message = f"image_bytes: expected images of 1 to {MAX_PIXELS:,} pixels, found height, width:"
    # A width of 2^31 and more is read as negative.
    fits = tf.logical_and(tf.reduce_all(size > 0), claimed <= MAX_PIXELS)
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, size])]):
        data = tf.identity(data)
    pixels = tf.cond(is_png, *_decoders(data))
    pixels.set_shape([None, None, 3])
    # JPEG keeps EXIF in a segment of at most 64 KiB near its start.
    head = tf.strings.substr(data, 0, 1 << 17)
    after = [tf.strings.split(head, tag)[1:2] for tag in _ORIENTATION]
    value = tf.strings.substr(tf.concat([*after, [b"\x01"]], 0)[0] + b"\x01", 0, 1)
    code = tf.io.decode_raw(value, tf.uint8)
    for turn, codes in (
        (tf.image.transpose, (5, 6, 7, 8)),
        (tf.image.flip_left_right, (2, 3, 6, 7)),
        (tf.image.flip_up_down, (3, 4, 7, 8)),
    ):
        turns = tf.reduce_any(code == tf.constant(codes, tf.uint8))
        pixels = tf.cond(turns, partial(turn, pixels), partial(tf.identity, pixels))
    return pixels


def _png_size(data: tf.Tensor) -> tf.Tensor:
    """Height and width as a PNG's header claims them, int32 [2]; 0 where it is cut off."""
    header = tf.strings.substr(data + b"\0" * 24, 16, 8)
    width_height = tf.io.decode_raw(header, tf.int32, little_endian=False)
    return tf.reverse(width_height, axis=[0])


def _decoders(data: tf.Tensor) -> tuple[Callable[[], tf.Tensor], Callable[[], tf.Tensor]]:
    """Decoders of one PNG and of one JPEG: float32 [h, w, 3], whole numbers in 0..255."""

    def png() -> tf.Tensor:
        # All PNGs fit 16 bits; 257 brings 0..65535 to 0..255. The file's own channels
        # (grey, grey and alpha, RGB, RGBA) are asked for, because TensorFlow adds a
        # wrong alpha channel to images of fewer than 8 bits.
        pixels = tf.cast(tf.io.decode_png(data, channels=0, dtype=tf.uint16), tf.float32) / 257
        channels = tf.shape(pixels)[-1]
        colours = channels - (1 - channels % 2)
        alpha = tf.cond(
            channels > colours, lambda: pixels[..., colours:] / 255, lambda: tf.ones([1, 1, 1])
        )
        rgb = pixels[..., :colours] * tf.ones([1, 1, 3])
        return tf.floor(rgb * alpha + 255 * (1 - alpha) + 0.5)

    def jpeg() -> tf.Tensor:
        # Pillow decodes with the accurate transform; TensorFlow's default is another.
        pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.cast(pixels, tf.float32)

    return png, jpeg


def _resize(pixels: tf.Tensor, height: int, width: int) -> tf.Tensor:
    # Training images were resized by Pillow: along the rows first, with whole
    # numbers after each pass. Doing the same gives the model the same pixels.
    rows = tf.image.resize(pixels, [tf.shape(pixels)[0], width], antialias=True)
    both = tf.image.resize(tf.floor(rows + 0.5), [height, width], antialias=True)
    return tf.cast(both + 0.5, tf.uint8)
