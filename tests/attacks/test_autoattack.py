"""The composition of AutoAttack, and its agreement with the authors' implementation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tfrobust.attacks.autoattack import autoattack
from tfrobust.data import load_all
from tfrobust.errors import UsageError
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel


def settings(attack, *names):
    return tuple(dataclasses.asdict(attack)[name] for name in names)


def test_standard_is_the_published_four_in_order():
    attacks = autoattack()
    assert list(attacks) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    apgd = ("loss", "steps", "rho", "eot_iter", "restarts")
    assert settings(attacks["apgd-ce"], *apgd) == ("cross_entropy", 100, 0.75, 1, 1)
    assert settings(attacks["apgd-t"], *apgd, "n_targets") == ("dlr", 100, 0.75, 1, 1, 9)
    fab = ("targeted", "n_targets", "steps", "alpha_max", "eta", "beta", "restarts", "starts")
    assert settings(attacks["fab-t"], *fab) == (True, 9, 100, 0.1, 1.05, 0.9, 1, 1)
    assert settings(attacks["square"], "queries", "p_init", "restarts") == (5000, 0.8, 1)


def test_plus_adds_the_untargeted_ones_with_five_restarts():
    attacks = autoattack("plus")
    assert list(attacks) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert settings(attacks["apgd-ce"], "loss", "restarts") == ("cross_entropy", 5)
    assert settings(attacks["apgd-dlr"], "loss", "restarts") == ("dlr", 5)
    assert settings(attacks["fab"], "targeted", "starts", "restarts") == (False, 5, 1)
    for name, attack in autoattack().items():
        assert name == "apgd-ce" or attacks[name] == attack


def test_rand_averages_gradients_over_twenty_passes():
    attacks = autoattack("rand")
    assert list(attacks) == ["apgd-ce", "apgd-dlr"]
    wanted = ("loss", "eot_iter", "restarts", "early_stop")
    assert settings(attacks["apgd-ce"], *wanted) == ("cross_entropy", 20, 1, False)
    assert settings(attacks["apgd-dlr"], *wanted) == ("dlr", 20, 1, False)


@pytest.mark.parametrize(("classes", "targeted", "untargeted"), [
    (2, "margin", "margin"), (3, "margin", "dlr"), (4, "dlr", "dlr"), (10, "dlr", "dlr"),
])  # fmt: skip
def test_few_classes_get_the_margin_where_dlr_is_not_defined(classes, targeted, untargeted):
    attacks = autoattack("plus", classes)
    assert (attacks["apgd-t"].loss, attacks["apgd-dlr"].loss) == (targeted, untargeted)


def test_in_l1_it_is_the_published_four_with_other_counts():
    attacks = autoattack("standard", norm="l1")
    assert list(attacks) == list(autoattack())
    assert settings(attacks["apgd-ce"], "loss", "steps", "restarts") == ("cross_entropy", 100, 5)
    assert settings(attacks["apgd-t"], "loss", "steps", "restarts", "n_targets") == (
        "dlr", 100, 1, 5,
    )  # fmt: skip
    assert all(attacks[name] == autoattack()[name] for name in ("fab-t", "square"))
    assert all("l1" in attack.norms for attack in attacks.values())


@pytest.mark.parametrize(("version", "norm"), [
    ("plus", "l1"), ("rand", "l1"), ("standard", "l0"), ("standard", "l3"),
])  # fmt: skip
def test_norms_without_a_published_ensemble_are_refused(version, norm):
    with pytest.raises(UsageError):
        autoattack(version, norm=norm)


@pytest.mark.parametrize(("arguments", "named"), [(("best",), "best"), (("standard", 1), "1")])
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(UsageError, match=named):
        autoattack(*arguments)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_runs_on_three_classes_and_finds_the_nearest_boundary(norm, linear_model):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 3))
    model = linear_model(weights, np.zeros(3))
    x = rng.uniform(0.4, 0.6, (4, 2, 2, 3)).astype("float32")
    y = np.argmax(model(x), axis=1).astype("int32")
    attack = autoattack("standard", 3, norm)["apgd-t"]
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    logits = x.reshape(4, -1) @ weights
    slopes = [np.linalg.norm(weights - weights[:, [k]], dual, 0) for k in y]
    gaps = [np.delete((z[k] - z) / np.maximum(s, 1e-9), k).min()
            for z, k, s in zip(logits, y, slopes, strict=True)]  # fmt: skip

    @tf.function(autograph=False)
    def attacked(x, y, eps):
        threat = ThreatModel(norm, eps, bounds=(-9.0, 9.0))
        return attack(model, x, y, threat, tf.constant([0, 1]))

    for factor, broken in ((1.01, True), (0.99, False)):
        for i, gap in enumerate(gaps):
            row = tf.constant(x[i : i + 1]), tf.constant(y[i : i + 1])
            x_adv = attacked(*row, tf.constant(gap * factor, tf.float32))
            assert (np.argmax(model(x_adv)) != y[i]) == broken


@pytest.mark.timeout(3600)
@pytest.mark.slow
def test_standard_agrees_with_the_authors_implementation(shared_data):
    folder = shared_data / "reference"
    official = json.loads((folder / "official_autoattack.json").read_text())
    model = keras.models.load_model(folder / "resnet2b.h5", compile=False)
    data = load_all(str(folder / "cifar10_test_500.npz"))
    report = evaluate(
        model, data, ThreatModel("linf", 2 / 255), autoattack(), batch_size=250, seed=0
    )
    after = {result.name: result.outcome.correct.mean() for result in report.attacks}
    assert abs(report.clean.correct.mean() - official["clean"]) < 1e-6
    assert abs(after["apgd-ce"] - official["after"]["apgd-ce"]) <= 0.006 + 1e-9
    assert abs(after["apgd-t"] - official["after"]["apgd-t"]) <= 0.002 + 1e-9
    assert abs(report.robust.mean() - official["robust"]) <= 0.002 + 1e-9
    mask = np.array([outcome == "1" for outcome in official["robust_mask"]])
    assert np.sum(report.robust != mask) <= 2
    assert not report.flags
