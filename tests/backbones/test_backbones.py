"""One contract for every backbone of the table, then what single ones promise."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfrobust.backbones import BACKBONES, blocks, build
from tfrobust.errors import UsageError
from tfrobust.runtime import keras, tf

# Number of blocks: repeated units of the paper (or DenseNet's 4 dense blocks), plus
# head and stem, plus top where convolution or BatchNormalization follow the last unit.
NUM_BLOCKS = {
    "mobilenetv2": 16 + 3,
    "resnet50": 3 + 4 + 6 + 3 + 2,
    "resnet101": 3 + 4 + 23 + 3 + 2,
    "resnet152": 3 + 8 + 36 + 3 + 2,
    "resnet50v2": 3 + 4 + 6 + 3 + 3,
    "densenet121": 4 + 3,
    "densenet169": 4 + 3,
    "densenet201": 4 + 3,
    # Three times N normal cells, two reduction cells, two stem cells.
    "nasnetmobile": 3 * 4 + 2 + 2 + 2,
    "nasnetlarge": 3 * 6 + 2 + 2 + 2,
    "efficientnetb0": 1 + 2 + 2 + 3 + 3 + 4 + 1 + 3,
    "efficientnetb1": 2 + 3 + 3 + 4 + 4 + 5 + 2 + 3,
    "efficientnetb2": 2 + 3 + 3 + 4 + 4 + 5 + 2 + 3,
    "efficientnetb3": 2 + 3 + 3 + 5 + 5 + 6 + 2 + 3,
    "efficientnetb4": 2 + 4 + 4 + 6 + 6 + 8 + 2 + 3,
    "efficientnetb5": 3 + 5 + 5 + 7 + 7 + 9 + 3 + 3,
    "efficientnetb6": 3 + 6 + 6 + 8 + 8 + 11 + 3 + 3,
    "efficientnetb7": 4 + 7 + 7 + 10 + 10 + 13 + 4 + 3,
    "resnet18": 2 + 2 + 2 + 2 + 2,
    "resnet34": 3 + 4 + 6 + 3 + 2,
    "resnext50": 3 + 4 + 6 + 3 + 2,
    # One convolution is a block, and the first is the stem.
    "simplenet": 3 + 1,
    "simplenet_plus": 8 + 1,
    "vit": 6 + 3,
}
# BatchNorms of the networks that are built here: one a convolution; of keras.applications
# every network has more than 40.
NUM_NORMS = {
    "resnet18": 1 + 2 * 8 + 3,
    "resnet34": 1 + 2 * 16 + 3,
    "resnext50": 1 + 3 * 16 + 4,
    "simplenet": 0,
    "simplenet_plus": 8,
    "vit": 0,
}
LIGHT = {
    "mobilenetv2",
    "resnet18",
    "simplenet",
    "simplenet_plus",
    "vit",
}
ALL = [pytest.param(name, marks=[] if name in LIGHT else [pytest.mark.slow]) for name in BACKBONES]


@pytest.fixture(scope="module", params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    """Module scope: all tests of one backbone run together, on one model."""
    return request.param


@functools.lru_cache(maxsize=1)
def model_of(name: str) -> Any:
    return build(name, num_classes=5, image_shape=(32, 32, 3), seed=1)


@functools.lru_cache(maxsize=1)
def logits_of(name: str) -> Any:
    return model_of(name)(digits())


@functools.cache
def digits() -> np.ndarray:
    """Four real images, float32 [4, 32, 32, 3] in [0, 1]."""
    grey = np.kron(load_digits().images[:4] / 16, np.ones((1, 4, 4)))
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)


def output_of(model: Any, layer: str, x: np.ndarray) -> np.ndarray:
    return keras.Model(model.input, model.get_layer(layer).output)(x).numpy()


def test_listing_names_and_importing_the_room_load_no_tensorflow() -> None:
    code = "import sys, tfrobust.backbones as b; list(b.BACKBONES); assert not {m} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code.replace("{m}", "{'tensorflow'}")], check=True)


def test_every_backbone_has_an_expected_number_of_blocks() -> None:
    assert list(BACKBONES) == list(NUM_BLOCKS)


# ---- the contract ----


class TestContract:
    def test_gives_float32_logits_at_32_pixels(self, name: str) -> None:
        model = model_of(name)
        logits = logits_of(name)
        assert model.name == name
        assert (model.input.name, model.input.dtype) == ("image", tf.float32)
        assert logits.shape == (4, 5) and logits.dtype == tf.float32
        assert np.isfinite(logits).all() and np.ptp(logits, axis=0).min() > 0

    def test_is_flat_and_of_stock_or_registered_layers(self, name: str) -> None:
        for layer in model_of(name).layers:
            assert not isinstance(layer, keras.Model | keras.layers.Lambda)
            stock = type(layer).__module__.startswith("tf_keras.")
            assert stock or keras.utils.get_registered_name(type(layer)).startswith("tfrobust>")

    def test_blocks_hold_each_variable_once_from_head_to_stem(self, name: str) -> None:
        model = model_of(name)
        found = blocks(model)
        held = [layer for block in found for layer in block.layers]
        assert sorted(map(id, held)) == sorted(id(one) for one in model.layers if one.weights)
        assert sum(len(layer.weights) for layer in held) == len(model.weights)
        assert len(found) == NUM_BLOCKS[name] == len({block.name for block in found})
        assert (found[0].name, found[-1].name) == ("head", "stem")

    def test_no_block_feeds_one_below_it(self, name: str) -> None:
        model = model_of(name)
        position = {
            layer.name: i for i, block in enumerate(blocks(model)) for layer in block.layers
        }
        # The topmost block met on any way from the image to the layer's input.
        topmost: dict[str, int] = {}
        for layer in model.layers:
            parents = [node.layer.name for node in layer.inbound_nodes[0].parent_nodes]
            above = min((topmost[parent] for parent in parents), default=len(position))
            assert position.get(layer.name, 0) <= above, layer.name
            topmost[layer.name] = position.get(layer.name, above)

    def test_normalises_as_its_publishers_do(self, name: str) -> None:
        constructor, pixels = BACKBONES[name].constructor, digits() * 255
        if ":" in constructor:
            library = keras.applications.imagenet_utils
            expected = library.preprocess_input(pixels, mode=BACKBONES[name].normalisation)
        else:
            library = sys.modules[getattr(keras.applications, constructor).__module__]
            expected = library.preprocess_input(pixels)
        found = output_of(model_of(name), "normalise", digits())
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)

    def test_reloads_without_custom_objects_bit_equal(self, name: str, tmp_path: Path) -> None:
        model = model_of(name)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras", compile=False)
        np.testing.assert_array_equal(again(digits()), logits_of(name))
        assert [block.name for block in blocks(again)] == [block.name for block in blocks(model)]

    def test_takes_other_sizes_momentum_and_dropout(self, name: str) -> None:
        model = build(name, num_classes=2, image_shape=(64, 48, 3), bn_momentum=0.8, dropout=0.5)
        norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
        assert all(layer.momentum == 0.8 for layer in norms)
        assert len(norms) == NUM_NORMS[name] if name in NUM_NORMS else len(norms) > 40
        assert model.output_shape == (None, 2)
        assert model.get_layer("dropout").rate == 0.5


# ---- normalisation and resizing, by hand ----
# (1 - .485) / .229, (.5 - .456) / .224, (0 - .406) / .225
STANDARDISED = (2.248908, 0.196429, -1.804444)


@pytest.mark.parametrize(
    ("backbone", "layer", "expected"),
    [
        # 2 * (1, .5, 0) - 1
        ("mobilenetv2", "normalise", (1, 0, -1)),
        # Blue 0 - 103.939, green 127.5 - 116.779, red 255 - 123.68
        ("resnet50", "normalise", (-103.939, 10.721, 131.32)),
        pytest.param("densenet121", "normalise", STANDARDISED, marks=pytest.mark.slow),
        ("efficientnetb0", "normalization", STANDARDISED),  # behind its own rescaling of 0..255
    ],
)
def test_normalises_one_pixel_as_by_hand(
    backbone: str, layer: str, expected: tuple[float, ...]
) -> None:
    model = model_of(backbone)
    layer = next(one.name for one in model.layers if one.name.startswith(layer))
    pixel = np.broadcast_to(np.array([1, 0.5, 0], np.float32), (1, 32, 32, 3))
    np.testing.assert_allclose(output_of(model, layer, pixel)[0, 7, 9], expected, rtol=1e-5)


def test_resizes_inside_the_model_with_the_image_s_own_gradient() -> None:
    model = build("mobilenetv2", num_classes=3, image_shape=(16, 16, 3), resize=32, alpha=0.35)
    x = np.zeros((1, 16, 16, 3), np.float32)
    x[0, :, 8:] = 1
    # Bilinear, pixel centres at halves: between columns 7 (value 0) and 8 (value 1) the new
    # columns 15 and 16 lie at 1/4 and 3/4; [-1, 1] makes that -1/2 and 1/2.
    row = output_of(model, "resize", x)[0, 5, 14:18, 0]
    np.testing.assert_allclose(row, [-1, -0.5, 0.5, 1], atol=1e-6)
    image = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(image)
        loss = tf.reduce_sum(model(image)[:, 0])
    gradient = tape.gradient(loss, image)
    assert gradient.shape == (1, 16, 16, 3) and np.abs(gradient).max() > 0


def test_images_of_the_right_size_are_not_resized() -> None:
    model = build("mobilenetv2", num_classes=3, image_shape=(32, 32, 3), resize=32, alpha=0.35)
    assert "resize" not in {layer.name for layer in model.layers}


# ---- numbers ----


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "backbone",
    ["mobilenetv2", pytest.param("efficientnetb0", marks=pytest.mark.slow), "simplenet", "vit"],
)
def test_mixed_precision_leaves_pixels_and_logits_float32(backbone: str, policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = build(backbone, num_classes=3, image_shape=(32, 32, 3))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    convolution = next(one for one in model.layers if isinstance(one, keras.layers.Conv2D))
    assert convolution.compute_dtype == policy.removeprefix("mixed_")
    assert model.get_layer("normalise").output.dtype == tf.float32
    logits = model(digits())
    assert logits.dtype == tf.float32 and np.isfinite(logits).all()


def test_a_seed_repeats_the_random_weights() -> None:
    def kernel(seed: int) -> np.ndarray:
        model = build("simplenet", num_classes=3, image_shape=(32, 32, 3), alpha=0.35, seed=seed)
        return np.concatenate([one.numpy().ravel() for one in model.trainable_weights])

    first = kernel(7)
    np.testing.assert_array_equal(kernel(7), first)
    assert not np.array_equal(kernel(8), first)


@pytest.mark.parametrize(
    "backbone",
    ["simplenet_plus",
     *(pytest.param(n, marks=pytest.mark.slow) for n in ("mobilenetv2", "resnet18", "vit"))],
)  # fmt: skip
def test_the_saved_model_answers_alike(backbone: str, tmp_path: Path) -> None:
    model, module = model_of(backbone), tf.Module()
    signature = tf.TensorSpec((None, 32, 32, 3), tf.float32)
    module.serve = tf.function(lambda x: model(x, training=False), input_signature=[signature])
    # The variables alone: Keras would trace every layer by itself, which is slow.
    module.held = model.variables
    tf.saved_model.save(module, str(tmp_path / "1"))
    again = tf.saved_model.load(str(tmp_path / "1"))
    np.testing.assert_allclose(again.serve(digits()), logits_of(backbone), atol=1e-5)


# ---- wrong use ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mobilenetv3"}, "Did you mean 'mobilenetv2'?"),
        ({"num_classes": 1}, "num_classes: expected at least 2, found 1"),
        ({"image_shape": (32, 32, 1)}, r"expected \(height, width, 3\), found \(32, 32, 1\)"),
        ({"image_shape": (28, 32, 3)}, "found 28x32: set resize to 32 or more"),
        ({"resize": 31}, "found resize 31: set resize to 32"),
        ({"alpha": 0.0}, "alpha: expected more than 0"),
        (
            {"name": "resnet50", "alpha": 0.5},
            "alpha: resnet50 does not .* expected 1.0, found 0.5",
        ),
        ({"name": "vit", "stem": "small"}, "vit does not .* resnet18 or resnet34 or resnex"),
        ({"name": "resnet18", "stem": "big"}, "stem: expected standard or medium or small, found"),
        ({"convolution": "unfold"}, "mobilenetv2 does not .* simplenet or simplenet_"),
        ({"name": "simplenet", "convolution": "own"}, "expected keras or unfold, found 'own'"),
        ({"name": "resnet18", "position_embedding": False}, "resnet18 does not .* vit"),
        ({"dropout": 1.0}, "dropout: expected at least 0 and less than 1, found 1.0"),
        ({"bn_momentum": -0.1}, "bn_momentum: expected at least 0"),
    ],
)
def test_wrong_use_is_told_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "name": "mobilenetv2",
        "num_classes": 3,
        "image_shape": (32, 32, 3),
        **changes,
    }
    with pytest.raises(UsageError, match=message):
        build(**arguments)
