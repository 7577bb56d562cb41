"""Methods, layers and classes by name, as the command line takes them."""

from __future__ import annotations

import pytest

from tfrobust.errors import UsageError
from tfrobust.explain import EXPLAINERS
from tfrobust.explain.selectors import classes_asked, layers_asked, methods_asked, titles

NAMES = ("goldfish, Carassius auratus", "crane", "crane, bird", "7", "cat")


def test_classes_go_by_any_of_their_names_or_by_number() -> None:
    assert classes_asked("Goldfish, cat,1", NAMES) == [0, 4, 1]
    assert classes_asked("carassius AURATUS,bird,0", NAMES) == [0, 2]
    # A name comes before a number.
    assert classes_asked("7", NAMES) == [3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crane", "'crane' is the name of several: expected one of 1, 2"),
        ("lion", r"a number in 0\.\.4 or a name such as 'goldfish', found 'lion'"),
        ("5", "found '5'"),
        ("-1", "found '-1'"),
        (" , ", "found none"),
    ],
)
def test_what_is_no_class_is_told(text, message) -> None:
    with pytest.raises(UsageError, match=message):
        classes_asked(text, NAMES)


def test_layers_are_those_with_channels(small_cnn) -> None:
    model = small_cnn()
    names = [layer.name for layer in model.layers if "conv2d" in layer.name]
    assert layers_asked(f"{names[1]},{names[0]},{names[1]}", model) == [names[1], names[0]]
    for text, found in (("logits", "logits"), (f"{names[0]},magic", "magic"),
                        ("", "without a name")):  # fmt: skip
        with pytest.raises(UsageError, match=f"--layers {found}: .*1x1: {', '.join(names)}"):
            layers_asked(text, model)


def test_methods_have_words_and_some_read_a_layer() -> None:
    found = methods_asked("gradcam, saliency,smoothgrad:samples=3,noise=0.1,smoothgrad")
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
            methods_asked(text)
    for text in ("smoothgrad:sample=3", "smoothgrad:samples=0", "gradcam:samples=3"):
        with pytest.raises(UsageError):
            methods_asked(text)
