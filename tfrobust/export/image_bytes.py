"""Decoding inside the served graph: encoded images in, pixels as in training out."""

from __future__ import annotations

from functools import partial

from tfrobust.runtime import tf

#: Maximum number of pixels (height x width) that an image sent as bytes may claim, and that all
#: images of a request may claim together; each side counts at least as the model's.
MAX_PIXELS = 16_000_000
MAX_REQUEST_PIXELS = 64_000_000
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
# EXIF's orientation tag with its type and count, in both byte orders; the value follows.
_ORIENTATION = (b"\x12\x01\x03\x00\x01\x00\x00\x00", b"\x01\x12\x00\x03\x00\x00\x00\x01\x00")
# Maximum number of pixels held as floats at one time.
_STRIP = 1 << 19


def assert_some(batch: tf.Tensor, name: str) -> tf.Operation:
    """Fails in the graph, with one sentence, if a batch is empty."""
    message = f"{name}: expected at least one image, found an empty batch."
    return tf.debugging.Assert(tf.shape(batch)[0] > 0, [message])


def decode(image_bytes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Encoded images, string [N] -> float32 [N, height, width, 3] in [0, 1].

    All headers are read before anything is decoded, and one image is decoded at a time: the
    memory that a request takes does not depend on the decoded size of its images.
    """
    start = tf.strings.substr(image_bytes, 0, len(_PNG))
    is_png = tf.equal(start, _PNG)
    with tf.control_dependencies(_assert_known(image_bytes, start, is_png)):
        data = tf.identity(image_bytes)
    with tf.control_dependencies(_assert_fit(data, is_png, height, width)):
        data = tf.identity(data)
    pixels = tf.map_fn(
        lambda item: _pixels(item[0], item[1], height, width),
        (data, is_png),
        fn_output_signature=tf.TensorSpec([height, width, 3], tf.uint8),
        parallel_iterations=1,
    )
    return tf.image.convert_image_dtype(pixels, tf.float32)


def _assert_known(data: tf.Tensor, start: tf.Tensor, is_png: tf.Tensor) -> list[tf.Operation]:
    known = tf.logical_or(is_png, tf.equal(tf.strings.substr(start, 0, len(_JPEG)), _JPEG))
    message = "image_bytes: expected JPEG or PNG, found other data (position, first bytes):"
    # Bytes that are not text would break the error message itself.
    readable = tf.strings.unicode_transcode(
        start, "UTF-8", "UTF-8", replacement_char=ord("?"), replace_control_characters=True
    )
    unknown = [tf.where(~known)[:, 0], tf.boolean_mask(readable, ~known)]
    return [
        assert_some(data, "image_bytes"),
        tf.debugging.Assert(tf.reduce_all(known), [message, *unknown]),
    ]


def _assert_fit(data: tf.Tensor, is_png: tf.Tensor, height: int, width: int) -> list[tf.Operation]:
    """Fails if an image, or all of them together, claim more pixels than allowed."""
    sizes = tf.map_fn(
        lambda item: tf.cond(item[1], lambda: _png_size(item[0]), lambda: _jpeg_size(item[0])),
        (data, is_png),
        fn_output_signature=tf.TensorSpec([2], tf.int32),
        parallel_iterations=1,
    )
    # Resizing passes through [the image's height, the model's width]; the result has the
    # model's size: a narrow or tiny image takes more than it claims.
    taken = tf.reduce_prod(tf.maximum(tf.cast(sizes, tf.int64), [[height, width]]), axis=1)
    # A width of 2^31 and more is read as negative.
    fits = tf.logical_and(tf.reduce_all(sizes > 0, axis=1), taken <= MAX_PIXELS)
    each = f"image_bytes: expected images of 1 to {MAX_PIXELS:,} pixels, found height, width:"
    # Larger ones are rejected above: with sizes clipped, the sum cannot overflow.
    total = tf.reduce_sum(tf.minimum(taken, MAX_PIXELS))
    message = (
        f"image_bytes: expected at most {MAX_REQUEST_PIXELS:,} pixels in all images of a request "
        f"(each counts as {height * width:,} or more), found:"
    )
    return [
        tf.debugging.Assert(tf.reduce_all(fits), [each, tf.boolean_mask(sizes, ~fits)[0:1]]),
        tf.debugging.Assert(total <= MAX_REQUEST_PIXELS, [message, total]),
    ]


def _png_size(data: tf.Tensor) -> tf.Tensor:
    """Height and width from a PNG's header, int32 [2]; 0 if it is truncated."""
    header = tf.strings.substr(data + b"\0" * 24, 16, 8)
    width_height = tf.io.decode_raw(header, tf.int32, little_endian=False)
    return tf.reverse(width_height, axis=[0])


def _jpeg_size(data: tf.Tensor) -> tf.Tensor:
    return tf.io.extract_jpeg_shape(data)[:2]


def _pixels(data: tf.Tensor, is_png: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """One encoded image -> uint8 [height, width, 3]."""
    code = _orientation(data)

    # The PNG's own channels (grey, grey and alpha, RGB, RGBA) are requested, because
    # TensorFlow adds a wrong alpha channel to images of fewer than 8 bits.
    def png() -> tf.Tensor:
        return _narrowed(_turned(tf.io.decode_png(data, 0), code), width)

    def deep_png() -> tf.Tensor:
        return _narrowed(_turned(tf.io.decode_png(data, 0, tf.uint16), code), width)

    def jpeg() -> tf.Tensor:
        # Pillow decodes with the accurate transform, which is not TensorFlow's default.
        pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return _narrowed(_turned(pixels, code), width)

    # A PNG's bit depth follows its size.
    is_deep = tf.equal(tf.strings.substr(data + b"\0" * 25, 24, 1), b"\x10")
    kind = tf.where(is_png, tf.where(is_deep, 2, 1), 0)
    rows = tf.switch_case(kind, [jpeg, png, deep_png])
    rows.set_shape([None, width, 3])
    return _whole(tf.image.resize(rows, [height, width], antialias=True))


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """EXIF's orientation code, uint8 [1]."""
    # JPEG keeps EXIF in a segment of at most 64 KiB near its start.
    head = tf.strings.substr(data, 0, 1 << 17)
    after = [tf.strings.split(head, tag)[1:2] for tag in _ORIENTATION]
    value = tf.strings.substr(tf.concat([*after, [b"\x01"]], 0)[0] + b"\x01", 0, 1)
    return tf.io.decode_raw(value, tf.uint8)


def _turned(pixels: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
    """Pixels [h, w, c] rotated upright by EXIF's orientation."""
    pixels.set_shape([None, None, pixels.shape[2]])
    for turn, codes in (
        (tf.image.transpose, (5, 6, 7, 8)),
        (tf.image.flip_left_right, (2, 3, 6, 7)),
        (tf.image.flip_up_down, (3, 4, 7, 8)),
    ):
        turns = tf.reduce_any(code == tf.constant(codes, tf.uint8))
        pixels = tf.cond(turns, partial(turn, pixels), partial(tf.identity, pixels))
    return pixels


def _narrowed(pixels: tf.Tensor, width: int) -> tf.Tensor:
    """Pixels [h, w, c] of 8 or 16 bits -> uint8 [h, width, 3].

    Training images were resized by Pillow: along the rows first, rounding after each pass. Doing
    the same gives the model the same pixels.
    """
    step = tf.maximum(1, _STRIP // tf.maximum(tf.shape(pixels)[1], width))
    # Most images are small: for them a loop would cost more than it saves.
    return tf.cond(
        tf.shape(pixels)[0] <= step,
        lambda: _strip(pixels, width),
        lambda: _by_strips(pixels, width, step),
    )


def _by_strips(pixels: tf.Tensor, width: int, step: tf.Tensor) -> tf.Tensor:
    """The same, `step` rows at a time: a large image is never held as floats as a whole."""
    count = (tf.shape(pixels)[0] + step - 1) // step
    strips = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, width, 3])

    def one(i: tf.Tensor, strips: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return i + 1, strips.write(i, _strip(pixels[i * step : (i + 1) * step], width))

    _, strips = tf.while_loop(lambda i, _: i < count, one, (0, strips), parallel_iterations=1)
    return strips.concat()


def _strip(pixels: tf.Tensor, width: int) -> tf.Tensor:
    rows = tf.image.resize(_on_white(pixels), [tf.shape(pixels)[0], width], antialias=True)
    return _whole(rows)


def _on_white(pixels: tf.Tensor) -> tf.Tensor:
    """Pixels [h, w, c], grey or RGB, with alpha or without -> RGB in 0..255."""
    if pixels.shape[2] == 3:
        return pixels
    # 16 bits hold all PNGs; dividing by 257 maps 0..65535 to 0..255.
    scale = 257 if pixels.dtype == tf.uint16 else 1
    pixels = tf.cast(pixels, tf.float32) / scale
    channels = tf.shape(pixels)[-1]
    colours = channels - (1 - channels % 2)
    alpha = tf.cond(
        channels > colours, lambda: pixels[..., colours:] / 255, lambda: tf.ones([1, 1, 1])
    )
    rgb = pixels[..., :colours] * tf.ones([1, 1, 3])
    return tf.floor(rgb * alpha + 255 * (1 - alpha) + 0.5)


def _whole(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(pixels + 0.5, tf.uint8)
