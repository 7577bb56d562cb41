"""Certificates: exact on a linear model, sound under attack, resumable, independent."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom

import tfrobust.radii.certify as certify_module
from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.runner import run
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.models import smoothed
from tfrobust.radii.certificates import ABSTAINED
from tfrobust.radii.certify import certify, lower_bound, radius_of
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel

SHAPE = (4, 4, 1)


def linear(seed=0):
    """Two classes, split by a plane through the grey image; its distance is known."""
    w = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    w /= np.linalg.norm(w)

    def model(x):
        z = tf.reduce_sum((x - 0.5) * w, axis=[1, 2, 3])
        return tf.stack([-z, z], axis=1)

    return model, w


def images(count=24, seed=1):
    x = np.random.default_rng(seed).uniform(size=(count, *SHAPE)).astype(np.float32)
    return x


def test_the_radius_of_a_linear_model_is_its_distance_but_never_more():
    model, w = linear()
    x = images()
    distance = ((x - 0.5) * w).sum(axis=(1, 2, 3))
    y = (distance > 0).astype(np.int32)
    found = certify(model, (x, y), 0.25, samples=20_000, alpha=0.001)
    certified = found.predictions != ABSTAINED
    assert (found.predictions[certified] == y[certified]).all() and certified.mean() > 0.8
    # The smoothed classifier of a plane is the plane: the exact radius is the distance.
    exact = np.abs(distance)[certified]
    assert (found.radii[certified] <= exact).all()
    # 20,000 samples bound the distance to a few thousandths where it is below 2 sigma.
    near = exact < 0.5
    assert (exact[near] - found.radii[certified][near]).max() < 0.03
    assert not found.radii[~certified].any()


@pytest.mark.parametrize(
    "successes, total, alpha", [(90, 100, 0.001), (5, 10, 0.05), (100, 100, 0.01), (1, 50, 0.1)]
)
def test_the_bound_is_clopper_and_pearsons(successes, total, alpha):
    bound = lower_bound(successes, total, alpha)
    # By definition: were the proportion the bound, so many successes had probability alpha.
    assert binom.sf(successes - 1, total, bound) == pytest.approx(alpha, rel=1e-6)


def test_edges_of_bound_and_radius():
    assert lower_bound(0, 10, 0.01) == 0
    assert lower_bound(10, 10, 0.01) == pytest.approx(0.01 ** (1 / 10))
    assert radius_of(0.5, 1.0) == 0 and radius_of(0.3, 1.0) == 0
    assert radius_of(0.841344746, 2.0) == pytest.approx(2.0, abs=1e-6)


def test_what_answers_at_random_is_abstained_from():
    rng_model = lambda x: tf.random.stateless_normal([tf.shape(x)[0], 2], [1, 2])  # noqa: E731
    found = certify(rng_model, (images(6), np.arange(6) % 2), 0.5, samples=500, selection=50)
    assert (found.predictions == ABSTAINED).mean() > 0.5 and found.certified_accuracy(0.01) < 0.5


def test_a_model_that_returns_nan_under_noise_is_certified_of_nothing():
    model, _ = linear()

    def broken(x):
        outside = tf.reduce_any((x < 0) | (x > 1), axis=[1, 2, 3])
        return tf.where(outside[:, None], float("nan"), model(x))

    found = certify(broken, (images(4), np.zeros(4, int)), 0.5, samples=200, selection=50)
    assert (found.predictions == ABSTAINED).all() and not found.radii.any()


def test_an_image_has_the_same_certificate_alone_and_among_others():
    model, _ = linear()
    x, y = images(6), np.arange(6) % 2
    whole = certify(model, (x, y), 0.25, samples=600, batch_size=256)
    again = certify(model, (x, y), 0.25, samples=600, batch_size=256)
    first = certify(model, (x[:3], y[:3]), 0.25, samples=600, batch_size=256)
    np.testing.assert_array_equal(whole.radii, again.radii)
    np.testing.assert_array_equal(whole.radii[:3], first.radii)


def test_a_certification_that_is_stopped_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    model, _ = linear()
    x, y = images(8), np.arange(8) % 2
    given = {"samples": 400, "resume_from": tmp_path / "part.npz"}
    monkeypatch.setattr(certify_module, "_SAVED_EVERY", 0.0)
    saved = certify_module._Saved.note
    calls = []

    def stopped(self):
        saved(self)
        calls.append(int((self.predictions != certify_module._UNDONE).sum()))
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(certify_module._Saved, "note", stopped)
    with pytest.raises(KeyboardInterrupt):
        certify(model, (x, y), 0.25, **given)
    done = calls[-1]
    found = certify(model, (x, y), 0.25, **given)
    assert calls[2] > done, "work went on where it had stopped"
    whole = certify(model, (x, y), 0.25, samples=400)
    np.testing.assert_array_equal(found.radii, whole.radii)
    np.testing.assert_array_equal(found.predictions, whole.predictions)
    assert not given["resume_from"].exists()


def test_what_another_model_left_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(certify_module, "_SAVED_EVERY", 0.0)
    monkeypatch.setattr(certify_module._Saved, "close", lambda self: None)
    x, y = images(4), np.zeros(4, int)
    file = tmp_path / "part.npz"
    certify(linear(0)[0], (x, y), 0.25, samples=200, resume_from=file)
    other = certify(linear(3)[0], (x, y), 0.25, samples=200, resume_from=file)
    np.testing.assert_array_equal(
        other.radii, certify(linear(3)[0], (x, y), 0.25, samples=200).radii
    )
    file.write_bytes(b"not numpy's")
    with pytest.raises(TFRobustError):
        certify(linear(0)[0], (x, y), 0.25, samples=200, resume_from=file)


@pytest.mark.parametrize(
    "wrong", [{"sigma": 0.0}, {"sigma": float("nan")}, {"alpha": 0.0}, {"alpha": 0.7},
              {"samples": 0}, {"selection": 0}, {"batch_size": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        certify(linear()[0], (images(2), [0, 1]), **{"sigma": 0.25, **wrong})


def test_labels_that_the_model_does_not_know_are_refused():
    with pytest.raises(TFRobustError):
        certify(linear()[0], (images(3), [0, 1, 2]), 0.25, samples=100)


def test_no_attack_succeeds_inside_a_certified_radius():
    keras.utils.set_random_seed(0)
    from tfrobust.data import load

    digits = load("digits")
    small = tf.image.resize(digits.train.pixels(slice(None)), [8, 8]).numpy()
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GaussianNoise(0.5),
                            keras.layers.Flatten(), keras.layers.Dense(64, "relu"),
                            keras.layers.Dense(10)])  # fmt: skip
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.fit(small, digits.train.labels, epochs=15, verbose=0)
    x = tf.image.resize(digits.test.pixels(slice(0, 359, 18)), [8, 8]).numpy()
    y = digits.test.labels[0:359:18]
    sigma, given = 0.5, {"samples": 1000}
    found = certify(net, (x, y), sigma, **given)
    held = np.flatnonzero(found.correct)
    assert len(held) > 8
    soft, attack = smoothed(net, sigma, 32), PGD(steps=20, loss="margin", early_stop=False)

    @tf.function(autograph=False)
    def attacked(image, label, eps):
        ball = dataclasses.replace(ThreatModel("l2", 1.0), eps=eps)
        return run(attack, soft, soft, image, label, ball, tf.constant([0, 0]))[0]

    moved = [
        attacked(tf.constant(x[i : i + 1]), tf.constant(y[i : i + 1]),
                 tf.constant(found.radii[i] * 0.999, tf.float32)).numpy()
        for i in held
    ]  # fmt: skip
    again = certify(net, (np.concatenate(moved), y[held]), sigma, **given)
    # Each proof may be wrong with probability .001; abstaining is no success of the attack.
    broken = (again.predictions != y[held]) & (again.predictions != ABSTAINED)
    assert not broken.any()
    # The attack is no idle one: it takes certified radius away from nearly all of them.
    assert (again.radii < found.radii[held]).mean() > 0.9


def test_what_is_saved_is_what_was_found(tmp_path):
    model, _ = linear()
    found = certify(model, (images(5), np.arange(5) % 2), 0.25, samples=300)
    files = found.save(tmp_path)
    assert [file.name for file in files] == [
        "certificates.json", "certificates.csv", "certified_accuracy.png"
    ]  # fmt: skip
    rows = (tmp_path / "certificates.csv").read_text().splitlines()
    assert len(rows) == 6 and [float(row.split(",")[3]) for row in rows[1:]] == pytest.approx(
        found.radii.tolist(), abs=1e-6
    )
    radii, accuracy = found.curve()
    assert accuracy[0] == found.certified_accuracy(0) == found.correct.mean()
    assert (np.diff(accuracy) <= 0).all() and (np.diff(radii) > 0).all()
