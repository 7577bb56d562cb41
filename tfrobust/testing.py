"""Contract suites for plug-ins, this project's and others'.

```python
from tfrobust.testing import check_attack

def test_my_attack():
    check_attack(MyAttack(steps=3), norms=("linf", "l2"))
```

Each check raises `AssertionError` with the violation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.text import Text

from tfrobust.attacks.runner import Attacked, run
from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure, encoded
from tfrobust.figures.style import DARK, LIGHT, SMALLEST, contrast, using
from tfrobust.models.inference import inference
from tfrobust.plugins import configured, settings_of
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training.methods import Method
from tfrobust.training.robust import robust
from tfrobust.typing import Array, Attack, Explainer, Model, Tensor

#: A radius for each norm at which small images are attacked.
RADII = {"linf": 0.1, "l2": 0.6, "l1": 3.0, "l0": 4.0}
_SIDE, _CLASSES, _IMAGES = 6, 5, 7


def small_model(channels: int = 3, seed: int = 0) -> Any:
    """A small tf_keras classifier of 6x6 images, convolutional, with 5 classes."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((_SIDE, _SIDE, channels))
    x = keras.layers.Conv2D(6, 3, activation="relu")(image)
    return keras.Model(image, keras.layers.Dense(_CLASSES)(keras.layers.Flatten()(x)))


def small_images(model: Model, channels: int = 3, seed: int = 1) -> tuple[Array, Array]:
    """Images float32 in [0, 1], and the labels that a model predicts for them."""
    x = np.random.default_rng(seed).uniform(size=(_IMAGES, _SIDE, _SIDE, channels))
    images = x.astype(np.float32)
    return images, np.argmax(model(images, training=False), axis=1).astype(np.int32)


def check_settings(plugin: Any) -> None:
    """Guarantees of every plug-in with settings: an attack, a method, an explainer, a format.

    - It is a frozen dataclass, constructible without arguments, and equal to a copy of itself.
    - Each setting appears in its `repr`, and in `dataclasses.asdict`.
    - A setting given as text, as on the command line, equals its value.
    - An unknown setting is a `UsageError`.

    Args:
      plugin: the class, an instance, or a function without arguments that returns one.
    """
    made = configured(plugin, {}, "plug-in")
    name = type(made).__name__
    assert hasattr(made, "__dataclass_params__"), f"{name}: no dataclass"
    assert made.__dataclass_params__.frozen, f"{name}: not frozen"
    assert dataclasses.replace(made) == made, f"{name}: expected an equal copy of itself"
    values = dataclasses.asdict(made)
    for key in settings_of(plugin):
        assert key in values and f"{key}=" in repr(made), f"{name}: {key} is missing"
        text = str(values[key]).lower() if isinstance(values[key], bool) else str(values[key])
        again = configured(plugin, {key: "none" if values[key] is None else text}, name)
        assert again == made, f"{name}: {key}={text} does not survive a round trip"
    try:
        configured(plugin, {"no_such_setting": "1"}, name)
    except UsageError:
        return
    raise AssertionError(f"{name}: accepts an unknown setting")


def check_method(method: Method, norms: Sequence[str] = ("linf",)) -> None:
    """Guarantees of every training method.

    - Its settings fulfil `check_settings`, and its step receives them.
    - One step has a finite loss and changes the weights, in each norm that it trains against;
      other norms are rejected.
    - Its declaration of `single_step` is correct.

    Args:
      method: with the settings to test.
      norms: to train against, some of `method.norms`.
    """
    check_settings(type(method))
    for norm in norms:
        model = small_model()
        x, y = small_images(model)
        wrapped = robust(model, method, ThreatModel(norm, RADII[norm]))
        wrapped.compile(keras.optimizers.SGD(0.1))
        assert wrapped.settings == method, f"{method}: its step does not receive the settings"
        assert wrapped.single_step == method.single_step, f"{method}: single_step"
        before = model.get_weights()
        loss = wrapped.fit(x, y, batch_size=len(x), verbose=0).history["loss"][0]
        assert np.isfinite(loss), f"{method} in {norm}: the loss is {loss}"
        moved = [np.any(one != two) for one, two in zip(before, model.get_weights(), strict=True)]
        assert any(moved), f"{method} in {norm}: no weight has changed"
    for norm in set(RADII) - set(method.norms):
        try:
            robust(small_model(), method, ThreatModel(norm, RADII[norm]))
        except UsageError:
            continue
        raise AssertionError(f"{method}: trains against {norm}, which it does not declare")


def check_attack(
    attack: Attack, norms: Sequence[str] = ("linf",), channels: Sequence[int] = (1, 3)
) -> None:
    """Guarantees of every attack to its caller.

    - It is a frozen dataclass, and can be replaced and printed; for its settings see
      `check_settings`.
    - Its result has the images' shape, is finite and, projected by the runner, lies in the ball
      and the bounds; no gradient flows through it.
    - It runs in a graph, with a batch size that is unknown while tracing, on one image and on
      many, with the given number of channels.
    - The same seed gives the same images.
    - It reports no success on an image that the model still classifies correctly.

    Args:
      attack: called as ``attack(model, x, y, ball, seed)``.
      norms: the norms that it supports.
      channels: of the images.
    """
    assert dataclasses.is_dataclass(attack) and not isinstance(attack, type), "no dataclass"
    check_settings(attack)
    for norm in norms:
        for count in channels:
            _check_in(attack, ThreatModel(norm, RADII[norm]), count)


def _check_in(attack: Attack, ball: ThreatModel, channels: int) -> None:
    model = small_model(channels)
    x, y = small_images(model, channels)
    classify = inference(model)
    specs = [tf.TensorSpec([None, *x.shape[1:]], tf.float32), tf.TensorSpec([None], tf.int32),
             tf.TensorSpec([2], tf.int32)]  # fmt: skip

    @tf.function(input_signature=specs, autograph=False)
    def step(x: Tensor, y: Tensor, seed: Tensor) -> Attacked:
        return run(attack, classify, classify, x, y, ball, seed)

    where = f"{type(attack).__name__} in {ball} on {channels} channel(s)"
    seed = tf.constant([3, 0], tf.int32)
    found = step(tf.constant(x), tf.constant(y), seed)
    made = found.x_adv.numpy()
    assert made.shape == x.shape and np.isfinite(made).all(), f"{where}: not finite, or reshaped"
    inside = ball.contains(found.x_adv, tf.constant(x)).numpy()
    assert inside.all(), f"{where}: outside of the ball or the bounds"
    again = step(tf.constant(x), tf.constant(y), seed).x_adv.numpy()
    assert np.array_equal(made, again), f"{where}: the same seed gives different images"
    wrong = np.argmax(model(made, training=False), axis=1) != y
    assert not (found.success.numpy() & ~wrong).any(), f"{where}: a false success"
    one = step(tf.constant(x[:1]), tf.constant(y[:1]), seed).x_adv.numpy()
    assert one.shape == x[:1].shape, f"{where}: a batch of one is reshaped"
    with tf.GradientTape() as tape:
        images = tf.constant(x)
        tape.watch(images)
        total = tf.reduce_sum(attack(classify, images, tf.constant(y), ball, seed))
    gradient = tape.gradient(total, images)
    assert gradient is None or not np.abs(gradient.numpy()).any(), f"{where}: gradients pass"


def check_explainer(explain: Explainer, channels: int = 3) -> None:
    """Guarantees of every explainer.

    - Maps are finite float32 [N, H, W] or [N, H, W, C], one per image.
    - An image's map does not depend on the others in its batch, and is reproducible.
    - Different classes have different maps.

    Args:
      explain: called as ``explain(model, x, target)``.
      channels: of the images.
    """
    model = small_model(channels)
    x, y = small_images(model, channels)
    maps = explain(model, x, y)
    assert maps.shape[:3] == x.shape[:3] and maps.dtype == np.float32, "shape or type"
    assert np.isfinite(maps).all(), "not finite"
    assert np.allclose(maps, explain(model, x, y), atol=1e-5), "is not reproducible"
    alone = explain(model, x[2:3], y[2:3])
    scale = max(float(np.abs(alone).max()), 1e-6)
    assert np.allclose(maps[2:3], alone, atol=1e-3 * scale), "depends on the batch"
    other = explain(model, x, (y + 1) % _CLASSES)
    assert not np.allclose(maps, other), "does not depend on the class"


def check_figure(figure: type[Figure[Any]], data: Any) -> None:
    """Guarantees of every figure.

    - Its settings fulfil `check_settings`; it has a title, a group and the type of its data.
    - It draws the same in light and dark mode, as PNG and as SVG, and leaves matplotlib's settings
      unchanged.
    - Its letters are readable at half size, contrast with their background, lie inside the figure
      and do not overlap.

    Args:
      figure: the class.
      data: an example of its data.
    """
    check_settings(figure)
    name = figure.__name__
    assert figure.title and figure.group, f"{name}: no title or no group"
    assert type(data) is figure.needs, f"{name}: needs {figure.needs}, found {type(data)}"
    settings = dict(matplotlib.rcParams)
    texts = []
    for colours, kind, head in ((LIGHT, "png", b"\x89PNG"), (DARK, "svg", b"<?xml")):
        with using(colours):
            drawing = figure().draw(data)
            assert encoded(drawing, kind, dpi=20).startswith(head), f"{name}: no {kind}"
            found = _texts(drawing)
            texts.append([text.get_text() for text in found])
            for text in found:
                _check_text(name, text, drawing)
            _check_apart(name, [text for text in found if text in drawing.texts])
            for axes in drawing.get_axes():
                _check_ticks(name, axes)
    assert texts[0] == texts[1], f"{name}: light and dark have different texts"
    assert dict(matplotlib.rcParams) == settings, f"{name}: changes matplotlib's settings"


def _texts(drawing: Drawing) -> list[Text]:
    """All visible texts."""
    drawing.draw_without_rendering()
    hidden = {id(text) for axes in drawing.get_axes() for text in _undrawn(axes)}
    return [
        text for text in drawing.findobj(Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden
    ]  # fmt: skip


def _undrawn(axes: Axes) -> Iterator[Text]:
    """Tick labels beyond the ends of their axis, or of an axis that is off."""
    for axis in (axes.xaxis, axes.yaxis):
        if not axes.axison:
            yield axis.label
        low, high = sorted(axis.get_view_interval())
        slack = 1e-9 * max(abs(low), abs(high), 1.0)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not axes.axison or not low - slack <= tick.get_loc() <= high + slack:
                yield from (tick.label1, tick.label2)


def _check_text(name: str, text: Text, drawing: Drawing) -> None:
    words, size = text.get_text(), float(text.get_fontsize())
    assert size >= SMALLEST, f"{name}: {words!r} has {size} points, below {SMALLEST}"
    box, whole = text.get_window_extent(), drawing.bbox
    inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1
    assert inside, f"{name}: {words!r} is cropped"
    # Words on bars and heat maps have a background of their own.
    axes = text.axes
    if not isinstance(axes, Axes) or text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        found = contrast(text.get_color(), drawing.get_facecolor())
        assert found >= 3, f"{name}: {words!r} has a contrast of {found:.1f}"


def _check_ticks(name: str, axes: Axes) -> None:
    if not axes.axison:
        return
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        hidden = {id(text) for text in _undrawn(axes)}
        shown = [one for one in labels if one.get_text() and id(one) not in hidden]
        # Rotated text has a box that is larger than its letters.
        _check_apart(name, [one for one in shown if not one.get_rotation()])


def _check_apart(name: str, texts: Sequence[Text]) -> None:
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
        for k, other in enumerate(boxes[:i]):
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            high = min(box.y1, other.y1) - max(box.y0, other.y0)
            words = f"{texts[i].get_text()!r} and {texts[k].get_text()!r}"
            # Boxes of consecutive lines overlap a little in their empty margins.
            assert wide <= 0.5 or high <= 2, f"{name}: {words} overlap"


def check_backbone(features: Callable[[Tensor], Tensor]) -> None:
    """Guarantees of every feature builder: a map or vector with gradients back to the image.

    Args:
      features: normalised symbolic images [B, 32, 32, 3] -> [B, h, w, C] or [B, C].
    """
    image = keras.Input((32, 32, 3))
    made = features(image)
    assert len(made.shape) in (2, 4) and made.shape[-1], "expected [B, h, w, C] or [B, C]"
    model = keras.Model(image, made)
    x = tf.constant(np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tf.square(model(x, training=False)))
    gradient = tape.gradient(total, x)
    assert gradient is not None and np.abs(gradient.numpy()).any(), "no gradient by the image"
    assert model.trainable_variables, "expected weights"
