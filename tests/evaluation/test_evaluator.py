"""The evaluator's guarantees, on linear models and on attacks that cheat."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass

import numpy as np
import pytest

from tfrobust.attacks.gradient import BIM, FGSM, PGD
from tfrobust.attacks.transfer import transfer, transfer_scores
from tfrobust.chance import wilson
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel


@dataclass(frozen=True)
class Cheat:
    """Leaves the ball: the image turned inside out."""

    restarts: int = 1
    gradient_evaluations: int = 0

    def __call__(self, model, x, y, threat_model, seed):
        return 1 - x


def images(count=40, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(100, 156, (count, 2, 2, 3)).astype("uint8")
    labels = rng.integers(0, classes, count).astype("int32")
    return ImageSet(pixels, labels, tuple("abcdef"[:classes]), tuple(f"i{i}" for i in range(count)))


def labelled_by(model, data):
    y = np.argmax(model(data.images.astype("float32") / 255), axis=1).astype("int32")
    return ImageSet(data.images, y, data.label_names, data.names)


def binary_model(linear_model):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(12, 2))
    # Bias so that the middle grey is undecided.
    return linear_model(weights, -0.5 * weights.sum(axis=0))


def radii(model, data):
    weights, bias = model.get_layer("logits").get_weights()
    w, b = weights[:, 1] - weights[:, 0], bias[1] - bias[0]
    flat = data.images.reshape(len(data), -1) / 255
    return np.abs(flat @ w + b) / np.abs(w).sum()


def test_accuracy_under_attack_is_the_closed_form(linear_model):
    model = binary_model(linear_model)
    data = labelled_by(model, images())
    radius = radii(model, data)
    eps = float(np.median(radius))
    report = evaluate(
        model, data, ThreatModel("linf", eps), {"fgsm": FGSM(), "pgd": PGD()}, batch_size=16
    )
    # An image stands where its distance from the boundary is more than eps.
    assert report.clean.correct.all()
    for attack in report.attacks:
        np.testing.assert_array_equal(attack.outcome.correct, radius > eps)
    np.testing.assert_array_equal(report.robust, radius > eps)
    assert not report.flags


def test_wrong_images_count_as_wrong_and_are_not_attacked(linear_model):
    model = binary_model(linear_model)
    data = images()
    report = evaluate(model, data, ThreatModel("linf", 0.0), {"pgd": PGD(steps=3)}, batch_size=7)
    right = labelled_by(model, data).labels == data.labels
    np.testing.assert_array_equal(report.clean.correct, right)
    np.testing.assert_array_equal(report.robust, right)
    assert report.attacks[0].gradient_evaluations == 3 * right.sum()


def test_restarts_work_on_what_still_stands(linear_model):
    model = binary_model(linear_model)
    data = labelled_by(model, images())
    eps = float(np.median(radii(model, data)))
    attack = PGD(steps=4, restarts=3)
    result = Evaluator(model, data).run("pgd", attack, ThreatModel("linf", eps))
    standing = int(result.outcome.correct.sum())
    # What stands costs 4 steps in each of 3 restarts; what falls, 1 to 4 in the first.
    fell = len(data) - standing
    assert 12 * standing + fell <= result.gradient_evaluations <= 12 * standing + 4 * fell
    assert result.attacked == len(data)


def test_an_attack_that_leaves_the_ball_gains_nothing(linear_model):
    model = binary_model(linear_model)
    data = labelled_by(model, images())
    eps = float(radii(model, data).min() * 0.99)
    report = evaluate(model, data, ThreatModel("linf", eps), {"cheat": Cheat()})
    assert report.robust.all()


def test_batches_at_once_share_no_temporary_variable(linear_model):
    """Grappler makes one of a chain of additions, under a name that two calls share."""
    model = binary_model(linear_model)
    evaluate(model, labelled_by(model, images(4)), ThreatModel("linf", 0.1), {"fgsm": FGSM()})
    assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"] is False


def test_batch_size_and_order_do_not_matter(linear_model):
    model = binary_model(linear_model)
    data = labelled_by(model, images(20))
    threat = ThreatModel("linf", float(np.median(radii(model, data))))
    masks = [evaluate(model, data, threat, {"pgd": PGD(steps=10)}, batch_size=b).robust
             for b in (1, 7, 64)]  # fmt: skip
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_radii_share_one_trace(small_cnn):
    model, traces = small_cnn(side=2, classes=2), []

    @dataclass(frozen=True)
    class Traced(Cheat):
        def __call__(self, model, x, y, threat_model, seed):
            traces.append(1)
            return x

    evaluate(
        model,
        images(),
        ThreatModel("linf", 0.1),
        {"traced": Traced()},
        sweep=(0.2, 0.3),
        batch_size=16,
    )
    assert len(traces) == 1


def test_steps_step_sizes_and_restarts_share_one_trace(linear_model):
    """And what is found is what each of them finds alone."""
    traces = []

    model = binary_model(linear_model)

    def traced(x):
        traces.append(1)
        return model(x)

    data = labelled_by(model, images())
    ball, attacks = ThreatModel("linf", 0.02), [
        PGD(steps=3, step_size=0.002), PGD(steps=1), PGD(steps=7, restarts=2), BIM(steps=4),
    ]  # fmt: skip
    shared, found = Evaluator(traced, data), []
    for attack in attacks:
        before = len(traces)
        outcome = shared.run("pgd", attack, ball).outcome
        crafted = shared.craft(attack, ball, np.arange(4))
        found.append((outcome, crafted, len(traces) - before))
    assert [count > 0 for *_, count in found] == [True, False, False, True]
    for attack, (outcome, crafted, _) in zip(attacks, found, strict=True):
        alone = Evaluator(model, data)
        correct = alone.run("pgd", attack, ball).outcome.correct
        np.testing.assert_array_equal(correct, outcome.correct)
        np.testing.assert_allclose(alone.craft(attack, ball, np.arange(4)), crafted, atol=1e-6)


def test_json_holds_the_contract_and_csv_every_image(linear_model):
    model = binary_model(linear_model)
    data = labelled_by(model, images())
    report = evaluate(model, data, ThreatModel("linf", 8 / 255), {"fgsm": FGSM()}, sweep=(0.1,))
    values = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    for key in (
        "clean_accuracy",
        "robust_accuracy",
        "attacks",
        "threat_model",
        "num_examples",
        "seconds",
        "flags",
        "unreliable",
    ):
        assert key in values
    fgsm = values["attacks"]["fgsm"]
    assert fgsm["gradient_evaluations"] == 40 and fgsm["parameters"]["steps"] == 1
    assert values["robust_accuracy"] == pytest.approx(report.robust.mean(), abs=1e-6)
    assert values["threat_model"]["eps_text"] == "8/255"
    rows = list(csv.DictReader(io.StringIO(report.as_csv(data.names, data.label_names))))
    assert [row["image"] for row in rows] == list(data.names)
    assert [int(row["robust"]) for row in rows] == report.robust.astype(int).tolist()
    assert "8/255" in report.as_text() and str(report) == report.as_text()
    # At the end of a notebook's cell: one line, without an array of every image.
    assert len(repr(report).splitlines()) == 1 and "8/255" in repr(report)


def test_a_softmax_model_is_as_robust_as_its_logits(small_cnn):
    base = small_cnn(side=2, classes=2)
    model = keras.Model(base.input, keras.layers.Softmax()(base.output))
    data = labelled_by(base, images())
    found = [
        evaluate(one, data, ThreatModel("linf", 0.1), {"pgd": PGD(steps=5)}).robust
        for one in (base, model, lambda x: model(x, training=False))
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_logits_that_become_nan_under_attack_are_failures_told_as_such(linear_model):
    base = binary_model(linear_model)
    data = labelled_by(base, images())
    # The logarithm is NaN as soon as a pixel falls below what the images hold.
    low = float(data.pixels(slice(None)).min())

    def model(x):
        return base(x) + 0 * tf.reduce_sum(tf.math.log(x - low + 1e-3), axis=[1, 2, 3])[:, None]

    report = evaluate(model, data, ThreatModel("linf", 0.5), {"pgd": PGD(steps=5)})
    assert report.clean.correct.all() and report.robust.mean() == 0
    assert "non_finite_outputs" in [flag["name"] for flag in report.flags]


def test_labels_beyond_the_model_and_nan_outputs_are_named(linear_model):
    model = binary_model(linear_model)
    with pytest.raises(TFRobustError, match="labels up to 3"):
        Evaluator(model, images(classes=4))
    broken = linear_model(np.full((12, 2), np.nan), np.zeros(2))
    with pytest.raises(TFRobustError, match="NaN"):
        Evaluator(broken, images())


def test_masked_gradients_are_flagged(linear_model):
    image = keras.Input((2, 2, 3), name="image")
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(tf.round(image))))
    weights = np.random.default_rng(0).normal(size=(12, 2))
    model.layers[-1].set_weights([weights, -0.5 * weights.sum(axis=0)])
    data = labelled_by(model, images())
    report = evaluate(model, data, ThreatModel("linf", 0.01), {"fgsm": FGSM(), "pgd": PGD()})
    assert {"zero_gradients", "never_falls_to_zero"} <= {flag["name"] for flag in report.flags}
    assert report.as_dict()["unreliable"] is True
    assert "UNRELIABLE" in report.as_text()


def test_a_constant_classifier_is_flagged(linear_model):
    model = linear_model(np.zeros((12, 2)), np.array([2.0, -1.0]))
    report = evaluate(model, images(), ThreatModel("linf", 0.1), {"fgsm": FGSM()})
    assert "constant_predictions" in [flag["name"] for flag in report.flags]


def test_single_step_beating_iterative_is_flagged(linear_model):
    model = binary_model(linear_model)
    data = labelled_by(model, images())
    threat = ThreatModel("linf", float(np.median(radii(model, data))))
    weak = PGD(steps=2, step_size=1e-6, random_start=False)
    report = evaluate(model, data, threat, {"fgsm": FGSM(), "pgd": weak})
    assert [flag["name"] for flag in report.flags] == ["single_step_beats_iterative"]


def test_transfer_shows_the_same_images_to_every_model(linear_model):
    model = binary_model(linear_model)
    data = labelled_by(model, images())
    weights, bias = model.get_layer("logits").get_weights()
    opposite = linear_model(-weights, -bias)
    threat = ThreatModel("linf", float(radii(model, data).max() * 1.01))
    hits = transfer(model, [model, opposite], data, FGSM(), threat, batch_size=16)
    found = transfer_scores(hits, ("itself", "opposite"), threat, "itself", "fgsm")
    # Every image crosses the boundary, where the opposite model is right.
    assert found["accuracy"] == {"itself": 0.0, "opposite": 1.0}


def test_wilson_interval_by_hand():
    # p = .5, n = 100, z = 1.96: centre .5,
    # half = z * sqrt(.25 / n + z^2 / (4 n^2)) / (1 + z^2 / n) = .0962.
    low, high = wilson(50, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0)
