"""Methods, layers and classes by name, as the command line takes them."""

from __future__ import annotations

import pytest

from tfrobust.errors import UsageError
from tfrobust.explain import EXPLAINERS
from tfrobust.explain.selectors import select_classes, select_layers, select_methods, titles

NAMES = ("goldfish, Carassius auratus", "crane", "crane, bird", "7", "cat")


def test_classes_go_by_any_of_their_names_or_by_number() -> None:
    assert select_classes("Goldfish, cat,1", NAMES) == [0, 4, 1]
    assert select_classes("carassius AURATUS,bird,0", NAMES) == [0, 2]
    # A name comes before a number.
    assert select_classes("7", NAMES) == [3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crane", "'crane'.*: expected one of 1, 2"),
        ("lion", r"a number in 0\.\.4 or a name such as 'goldfish', found 'lion'"),
        ("5", "found '5'"),
        ("-1", "found '-1'"),
        (" , ", "found none"),
    ],
)
def test_what_is_no_class_is_told(text, message) -> None:
    with pytest.raises(UsageError, match=message):
        select_classes(text, NAMES)


def test_layers_are_those_with_channels(small_cnn) -> None:
    model = small_cnn()
    names = [layer.name for layer in model.layers if "conv2d" in layer.name]
    assert select_layers(f"{names[1]},{names[0]},{names[1]}", model) == [names[1], names[0]]
    for text, found in (("logits", "logits"), (f"{names[0]},magic", "magic"),
                        ("", "without a name")):  # fmt: skip
        with pytest.raises(UsageError, match=f"--layers {found}: .*1x1: {', '.join(names)}"):
            select_layers(text, model)


def test_methods_have_words_and_some_read_a_layer() -> None:
    found = select_methods("gradcam, saliency,smoothgrad:samples=3,noise=0.1,smoothgrad")
    assert titles(found) == {
        "gradcam": "Grad-CAM", "saliency": "gradient", "smoothgrad": "SmoothGrad",
        "smoothgrad:samples=3:noise=0.1": "SmoothGrad:samples=3:noise=0.1",
    }  # fmt: skip
    noisy = found["smoothgrad:samples=3:noise=0.1"]
    assert (noisy.samples, noisy.noise, found["smoothgrad"].samples) == (3, 0.1, 25)
    assert {name for name in EXPLAINERS if EXPLAINERS[name].reads_layers} == {
        "gradcam", "gradcam++", "scorecam", "layercam",
    }  # fmt: skip
    for text in ("", "gradcm"):
        with pytest.raises(UsageError, match="Unknown explainer"):
            select_methods(text)
    for text in ("smoothgrad:sample=3", "smoothgrad:samples=0", "gradcam:samples=3"):
        with pytest.raises(UsageError):
            select_methods(text)
