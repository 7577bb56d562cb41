"""What each network that is built here promises by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfrobust.backbones import BACKBONES, build
from tfrobust.backbones.description import OPTIONS, scaled
from tfrobust.runtime import tf


def made(name: str, side: int = 32, **options: Any) -> Any:
    return build(name, num_classes=10, image_shape=(side, side, 3), seed=1, **options)


def images(side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).random((2, side, side, 3), np.float32)


@pytest.mark.parametrize(
    ("name", "parameters", "classes"),
    [
        # torchvision's published numbers of parameters: without the statistics of
        # BatchNorm, which Keras counts too.
        ("resnet18", 11_689_512, 1000),
        pytest.param("resnet34", 21_797_672, 1000, marks=pytest.mark.slow),
        pytest.param("resnext50", 25_028_904, 1000, marks=pytest.mark.slow),
        # 7*7*3*32 + 32, 3*3*32*64 + 64, 3*3*64*128 + 128, and 128*10 + 10.
        ("simplenet", 4_736 + 18_496 + 73_856 + 1_290, 10),
        # Patches 4*4*3*192 + 192, positions 64*192; six times two norms of 2*192, four
        # projections of 192*192 + 192, 192*384 + 384 and 384*192 + 192; norm; 192*10 + 10.
        ("vit", 9_408 + 12_288 + 6 * (768 + 148_224 + 74_112 + 73_920) + 384 + 1_930, 10),
    ],
)
def test_has_as_many_parameters_as_by_hand(name: str, parameters: int, classes: int) -> None:
    model = build(name, num_classes=classes, image_shape=(32, 32, 3))
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == parameters


def test_alpha_scales_channels_to_multiples_of_eight() -> None:
    # 64 * .35 = 22.4 is nearest to 24, and nothing falls below 8.
    assert [scaled(64, alpha) for alpha in (1, 0.25, 0.35, 0.01)] == [64, 16, 24, 8]
    for name, widest, alpha in (
        ("resnet18", 512, 0.25), ("simplenet", 128, 2.0), ("simplenet_plus", 256, 0.5)
    ):  # fmt: skip
        pooled = made(name, alpha=alpha).get_layer("avg_pool").output
        assert pooled.shape[-1] == widest * alpha
    # Three heads of 64 * .25 each.
    assert made("vit", alpha=0.25).get_layer("avg_pool").output.shape[-1] == 48


def test_the_small_stem_keeps_the_side_that_the_standard_one_quarters() -> None:
    # 32 / 4, then halved three times.
    for stem, sides in (("standard", [8, 4, 2, 1]), ("small", [32, 16, 8, 4])):
        model = made("resnet18", alpha=0.25, stem=stem)
        found = [model.get_layer(f"layer{i}.1.relu").output.shape[1] for i in range(1, 5)]
        assert found == sides


def test_without_position_embedding_the_patches_are_a_set() -> None:
    # Patches of 4x4 pixels, turned end for end: other positions, the same patches.
    x = images()
    cut = x.reshape(2, 8, 4, 8, 4, 3)
    moved = cut[:, ::-1, :, ::-1].reshape(x.shape)
    without, with_it = (made("vit", alpha=0.25, position_embedding=p) for p in (False, True))
    np.testing.assert_allclose(without(moved), without(x), atol=1e-5)
    position = with_it.get_layer("position")
    position.set_weights([50 * position.get_weights()[0]])
    assert np.abs(with_it(moved) - with_it(x)).max() > 1e-2


@pytest.mark.parametrize(("shape", "patch"), [((32, 64), (4, 8)), ((36, 47), (5, 6))])
def test_vit_sees_every_pixel(shape: tuple[int, int], patch: tuple[int, int]) -> None:
    # An eighth of each side, rounded up: of 36 and 47 pixels, 5 and 6.
    model = build("vit", num_classes=3, image_shape=(*shape, 3), alpha=0.25)
    patches = model.get_layer("patches")
    assert patches.kernel_size == patches.strides == patch
    x = np.zeros((1, *shape, 3), np.float32)
    changed = np.repeat(x, 4, axis=0)
    for row, (i, j) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1)]):
        changed[row, i, j] = 1
    assert (np.abs(model(changed) - model(x)).max(axis=1) > 1e-6).all()


def test_both_convolutions_are_the_same_network() -> None:
    for name in ("simplenet", "simplenet_plus"):
        ours, theirs = (made(name, convolution=kind) for kind in ("unfold", "keras"))
        theirs.set_weights(ours.get_weights())
        assert len([one for one in ours.layers if type(one).__name__ == "UnfoldConv2D"]) in (3, 8)
        np.testing.assert_allclose(ours(images()), theirs(images()), atol=1e-5)


def test_each_option_is_a_setting_with_its_default() -> None:
    assert OPTIONS == {
        "alpha": 1.0, "stem": "standard", "convolution": "keras", "position_embedding": True,
    }  # fmt: skip
    for name, default in OPTIONS.items():
        assert build.__kwdefaults__[name] == default
        assert any(name in BACKBONES[one].options for one in BACKBONES)


@pytest.mark.parametrize("name", ["resnet18", "simplenet", "vit"])
def test_every_trained_variable_has_a_gradient(name: str) -> None:
    model = made(name, alpha=0.25)
    with tf.GradientTape() as tape:
        logits = model(images(), training=True)
        total = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
    # But for the keys' biases: they move all scores of a query alike, and softmax sees none.
    variables = [w for w in model.trainable_weights if "/key/bias" not in w.name]
    gradients = tape.gradient(total, variables)
    pairs = zip(variables, gradients, strict=True)
    still = [w.name for w, grad in pairs if grad is None or not np.abs(grad).max() > 0]
    assert not still
