"""Each doubt is raised by a model or attack that deserves it, and by no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tfrobust.attacks.gradient import FGSM, PGD
from tfrobust.attacks.noise import OptimisedNoise, UniformNoise
from tfrobust.attacks.pixel import PixelAttack
from tfrobust.data.types import ImageSet
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(48, 2)).astype("float32")
PIXELS = RNG.integers(90, 166, (64, 4, 4, 3)).astype("uint8")
ALL = {"fgsm": FGSM(), "pgd": PGD(steps=10, random_start=False)}


@dataclass(frozen=True)
class Corner:
    """Sees no gradient: goes straight for the corner that breaks a linear model."""

    needs_gradient: ClassVar[bool] = False

    restarts: int = 1

    def __call__(self, model, x, y, threat_model, seed):
        w = tf.reshape(tf.constant(WEIGHTS[:, 1] - WEIGHTS[:, 0]), [4, 4, 3])
        direction = tf.sign(w)[None] * (1 - 2 * tf.cast(y, tf.float32))[:, None, None, None]
        return x + threat_model.eps * direction


def linear(x):
    # Centred, so that grey is undecided.
    return (tf.reshape(x, [-1, 48]) - 0.5) @ WEIGHTS


def flags(logits, attacks=ALL, eps=None, norm="linf"):
    x = PIXELS.astype("float32") / 255
    y = np.argmax(linear(x), axis=1).astype("int32")
    w = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    radius = np.abs((x.reshape(-1, 48) - 0.5) @ w) / np.abs(w).sum()
    eps = float(np.median(radius)) if eps is None else eps
    data = ImageSet(PIXELS, y, ("a", "b"))
    report = evaluate(logits, data, ThreatModel(norm, eps), attacks, batch_size=64)
    assert report.as_dict()["unreliable"] is bool(report.flags)
    assert all(flag["name"] in report.as_text() for flag in report.flags)
    return {flag["name"] for flag in report.flags}


def test_an_honest_model_raises_no_doubt():
    assert flags(linear) == set()


def test_masked_gradients():
    masked = flags(lambda x: tf.stop_gradient(linear(x)) + 0 * linear(x))
    assert {"zero_gradients", "never_falls_to_zero"} <= masked


def test_saturated_cross_entropy_is_told_from_masked_logits():
    # Logits of thousands: softmax is exactly 0 and 1, the margin still has its gradient.
    assert "vanishing_gradients" in flags(lambda x: 1e5 * linear(x))


def test_randomised_outputs():
    noisy = flags(lambda x: linear(x + tf.random.normal(tf.shape(x), stddev=0.05)))
    assert "randomised_outputs" in noisy and "batch_dependence" not in noisy


def test_batch_dependence():
    assert "batch_dependence" in flags(lambda x: linear(x - tf.reduce_mean(x, 0) + 0.5))


def test_a_single_step_alone_is_not_enough():
    assert flags(linear, {"fgsm": FGSM()}) == {"no_iterative_attack"}


def test_a_single_step_that_beats_the_iterative_attack():
    weak = PGD(steps=2, step_size=1e-6, random_start=False)
    assert flags(linear, {"fgsm": FGSM(), "pgd": weak}) == {"single_step_beats_iterative"}


def test_a_black_box_attack_that_beats_the_white_box_ones():
    weak = PGD(steps=2, step_size=1e-6, random_start=False)
    assert flags(linear, {"pgd": weak, "square": Corner()}) == {"black_box_beats_white_box"}
    assert flags(linear, {"pgd": ALL["pgd"], "square": Corner()}) == set()


def test_attacks_that_are_no_worst_case_neither_count_as_iterative_nor_are_compared():
    partial = {"optimised-noise": OptimisedNoise(steps=5), "pixel": PixelAttack(fraction=0.1)}
    assert flags(linear, {"fgsm": FGSM(), **partial}) == {"no_iterative_attack"}
    # Nothing before it saw a gradient: no wonder that the black-box attack does better.
    assert flags(linear, {"square": Corner()}) == {"no_iterative_attack"}
    noise = {"uniform-noise": UniformNoise(), "square": Corner(), "pgd": ALL["pgd"]}
    assert flags(linear, noise) == set()


@pytest.mark.parametrize(
    "norm, eps", [("l2", 0.3), pytest.param("l1", 3.0, marks=pytest.mark.slow), ("l0", 3)]
)
def test_an_honest_model_raises_no_doubt_in_other_norms(norm, eps):
    # In l0 PGD is no good attack, and more steps do more: that it is told so is right.
    expected = {"out_of_steps"} if norm == "l0" else set()
    assert flags(linear, {"pgd": PGD(steps=40)}, eps, norm) == expected


def test_too_few_steps():
    # Four steps of an eighth of the radius: half of the way.
    eps = 0.02
    short = PGD(steps=4, step_size=eps / 8, random_start=False)
    assert flags(linear, {"pgd": short}, eps) == {"out_of_steps"}
    # An attack after it that breaks nothing hides nothing; one that breaks the rest does.
    assert flags(linear, {"pgd": short, "noise": UniformNoise()}, eps) == {"out_of_steps"}
    longer = PGD(steps=40, loss="margin")
    assert flags(linear, {"pgd": short, "longer": longer}, eps) == set()


@pytest.mark.parametrize("attacks", [{}, ALL])
def test_a_constant_classifier(attacks):
    constant = lambda x: 0 * linear(x) + tf.constant([2.0, -1.0])  # noqa: E731
    assert "constant_predictions" in flags(constant, attacks)
