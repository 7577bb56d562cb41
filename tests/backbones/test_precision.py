"""A network trained in mixed precision is kept as one that computes in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfrobust.backbones import build
from tfrobust.backbones.precision import in_float32, is_mixed
from tfrobust.runtime import keras

SHAPE = (32, 32, 3)
X = np.random.default_rng(0).random((4, *SHAPE), np.float32)


def mixed(backbone: str, policy: str = "mixed_bfloat16", **options: Any) -> Any:
    keras.mixed_precision.set_global_policy(policy)
    try:
        return build(backbone, num_classes=3, image_shape=SHAPE, seed=0, **options)
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("mobilenetv2", {"alpha": 0.35, "bn_momentum": 0.9, "dropout": 0.1}),
        pytest.param("resnet18", {"alpha": 0.125, "stem": "small"}, marks=pytest.mark.slow),
        ("simplenet", {"convolution": "unfold", "alpha": 0.25}),
        ("vit", {"alpha": 0.25}),
    ],
)
def test_it_is_the_network_as_built_in_float32(backbone: str, options: Any) -> None:
    model = mixed(backbone, **options)
    copy = in_float32(model)
    plain = build(backbone, num_classes=3, image_shape=SHAPE, seed=0, **options)
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(X), plain(X))
    assert copy.get_config() == plain.get_config() and copy.name == plain.name
    assert is_mixed(model) and not is_mixed(copy) and not is_mixed(plain)


def test_the_copy_s_weights_are_its_own() -> None:
    model = mixed("simplenet", "mixed_float16", alpha=0.25)
    copy = in_float32(model)
    before = model(X).numpy()
    copy.set_weights([np.zeros_like(w) for w in copy.get_weights()])
    np.testing.assert_array_equal(model(X), before)


def test_what_rounding_hides_is_seen_again() -> None:
    """A change of one pixel far below bfloat16's grid reaches the logits in float32 alone."""
    model = mixed("simplenet", alpha=0.25)
    x, near = X.copy(), X.copy()
    x[:, 16, 16], near[:, 16, 16] = 0.9, 0.9001
    np.testing.assert_array_equal(model(near), model(x))
    copy = in_float32(model)
    assert (copy(near).numpy() != copy(x).numpy()).any(axis=1).all()
