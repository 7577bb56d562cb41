"""The pixel attack: which pixels, how many, and the best colours on a linear model."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.pixel import PixelAttack, pixel_count, random_pixels
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])


def images(batch, side):
    rng = np.random.default_rng(0)
    return tf.constant(rng.uniform(0.2, 0.8, (batch, side, side, 3)).astype("float32"))


def changed(x_adv, x):
    """Which pixels differ, bool [B, H, W]."""
    return np.any(np.asarray(x_adv) != np.asarray(x), axis=3)


def one_pixel_counts(linear_model):
    """A 2x2 model that hardly sees but the first pixel: white there, class 1 becomes 0."""
    weights = np.full((12, 2), 1e-3) * [1.0, 0.0]
    weights[:3, 0] = 1.0
    return linear_model(weights, np.array([0.0, 2.7]))


class Calls:
    """A model that notes how many images it is given; to be run eagerly."""

    def __init__(self, model):
        self.model, self.rows = model, []

    def __call__(self, x):
        self.rows.append(int(x.shape[0]))
        return self.model(x)


def test_half_a_percent_is_5_pixels_at_32_and_20_at_64():
    assert pixel_count(0.005, 32, 32) == 5
    assert pixel_count(0.005, 64, 64) == 20
    assert pixel_count(0.005, 8, 8) == 1
    assert pixel_count(1.0, 2, 3) == 6
    with pytest.raises(UsageError, match="known height and width"):
        pixel_count(0.005, None, 32)


@pytest.mark.parametrize(("side", "count"), [(32, 5), (64, 20)])
def test_random_pixels_are_exactly_so_many_and_differ_between_images(side, count):
    chosen = random_pixels(tf.zeros([7, side, side, 3]), count, SEED).numpy()
    assert chosen.sum(axis=(1, 2, 3)).tolist() == [count] * 7
    assert len(np.unique(chosen.reshape(7, -1), axis=0)) == 7


@pytest.mark.parametrize("random_start", [True, False])
def test_finds_the_best_colours_of_the_chosen_pixels(random_start, linear_model):
    weights = np.random.default_rng(4).normal(size=(768, 2))
    # Out of reach: the attack goes all the way.
    model = linear_model(weights, np.array([-1e3, 1e3]), side=16)
    x, y = images(5, side=16), tf.ones(5, tf.int32)
    attack = PixelAttack(fraction=0.02, retries=0, random_start=random_start)
    x_adv = attack(model, x, y, ThreatModel("l0", 9.0), SEED).numpy()
    mask = changed(x_adv, x)
    assert mask.sum(axis=(1, 2)).tolist() == [5] * 5
    # A linear function is largest where each channel is at the bound its weight points to.
    best = (weights[:, 0] > weights[:, 1]).astype("float32").reshape(16, 16, 3)
    np.testing.assert_array_equal(x_adv, np.where(mask[..., None], best, x))


def test_an_l0_ball_of_fewer_pixels_is_kept(small_cnn):
    model, x, threat = small_cnn(32), images(3, side=32), ThreatModel("l0", 2.0)
    y = tf.argmax(model(x), axis=1, output_type=tf.int32)
    x_adv = PixelAttack(steps=2, retries=1)(model, x, y, threat, SEED)
    assert np.all(threat.contains(x_adv, x))
    assert np.all(changed(x_adv, x).sum(axis=(1, 2)) == 2)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_stays_in_the_ball(norm, small_cnn):
    model, x = small_cnn(), images(3, side=8)
    threat = ThreatModel(norm, 5.0 if norm == "l0" else 0.1)
    y = tf.argmax(model(x), axis=1, output_type=tf.int32)
    x_adv = PixelAttack(fraction=0.05, steps=2, retries=1)(model, x, y, threat, SEED)
    assert np.all(threat.contains(x_adv, x))
    # Three pixels of 64, and each choice of them leaves nothing behind.
    count = changed(x_adv, x).sum(axis=(1, 2))
    assert np.all((count >= 1) & (count <= 3))


def test_one_trace_serves_all_batch_sizes_and_radii(linear_model):
    model, x, traces = one_pixel_counts(linear_model), images(16, side=2), []
    spec = [tf.TensorSpec([None, 2, 2, 3]), tf.TensorSpec([None], tf.int32), tf.TensorSpec([])]
    attack = PixelAttack(steps=4, step_size=0.3, retries=40)

    @tf.function(input_signature=spec, autograph=False)
    def run(x, y, eps):
        traces.append(1)
        return attack(model, x, y, ThreatModel("l0", eps), SEED)

    for batch, eps in ((1, 1.0), (5, 1.0), (16, 1.0), (16, 0.0)):
        y = tf.ones(batch, tf.int32)
        x_adv = run(x[:batch], y, eps)
        assert np.array_equal(x_adv, run(x[:batch], y, eps))
        # One pixel of four is the right one: with enough tries it is found, without changes not.
        assert np.all(changed(x_adv, x[:batch]).sum(axis=(1, 2)) == eps)
        assert np.all(np.argmax(model(x_adv), axis=1) == 1 - eps)
    assert len(traces) == 1


def test_retries_draw_other_pixels_for_what_still_stands(linear_model):
    model, x, y = one_pixel_counts(linear_model), images(16, side=2), tf.ones(16, tf.int32)
    threat, once, twice = ThreatModel("l0", 1.0), Calls(model), Calls(model)
    first = PixelAttack(steps=4, step_size=0.3, retries=0)(once, x, y, threat, SEED)
    broken = np.argmax(model(first), axis=1) == 0
    # One pixel of four: right for some of the images, and only those.
    assert 0 < broken.sum() < 16
    second = PixelAttack(steps=4, step_size=0.3, retries=1)(twice, x, y, threat, SEED)
    assert twice.rows[:4] == once.rows and twice.rows[5] == 16 - broken.sum()
    np.testing.assert_array_equal(second.numpy()[broken], first.numpy()[broken])
    others = changed(first, x)[~broken] != changed(second, x)[~broken]
    assert np.any(others) and np.any(np.argmax(model(second), axis=1)[~broken] == 0)


def test_the_path_holds_every_try_and_ends_where_the_attack_does(linear_model):
    model, x, y = one_pixel_counts(linear_model), images(4, side=2), tf.ones(4, tf.int32)
    attack = PixelAttack(steps=4, step_size=0.3, retries=2, random_start=False)
    threat = ThreatModel("l0", 1.0)
    path = attack.path(model, x, y, threat, SEED)
    assert path.x_adv.shape == (15, 4, 2, 2, 3)
    np.testing.assert_allclose(path.x_adv[-1], attack(model, x, y, threat, SEED), atol=1e-6)
    size = path.size.numpy()
    standing = path.p_true.numpy()[4] > 0.5
    # A try starts at the image itself where the last one failed, and moves at once.
    assert np.all(size[0] == 0) and np.all(size[1] > 0)
    assert np.all(size[5][standing] == 0) and np.all(size[5][~standing] > 0)
    assert np.all(changed(path.x_adv[4], x).sum(axis=(1, 2)) == 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fraction": 0.0}, {"fraction": 1.5}, {"steps": 0}, {"step_size": 0.0}, {"retries": -1},
        {"restarts": 0}, {"loss": "hinge"},
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PixelAttack(**wrong)
