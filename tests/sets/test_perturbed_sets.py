"""Perturbed sets of a linear model, for which it is known which images can be turned."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.noise import UniformNoise
from tfrobust.attacks.pixel import PixelAttack
from tfrobust.data.perturbed import Source, digests
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.sets.perturbed import Perturber, SetPlan
from tfrobust.threat_model import ThreatModel

EPS = 8 / 255
# Red minus blue, in levels. Within EPS each image moves by 16 levels: 4 and 12 can be turned.
LEVELS = (4, 40, 12, 30)


@pytest.fixture
def model(linear_model):
    """Class 1 where the mean red exceeds the mean blue."""
    weights = np.tile([[-1, 1], [0, 0], [1, -1]], (4, 1)) * 20
    return linear_model(weights, np.zeros(2))


def make_source(count: int = 16, wrong: tuple[int, ...] = ()) -> Source:
    """Images in the order 0, 1, ..., of both classes, with LEVELS in turn."""
    level = np.array(LEVELS)[np.arange(count) % len(LEVELS)]
    labels = (np.arange(count) // 4 % 2).astype(np.int32)
    images = np.full((count, 2, 2, 3), 120, np.uint8)
    images[..., 1] = np.random.default_rng(0).integers(0, 256, (count, 2, 2))
    images[..., 0] += ((2 * labels - 1) * level // 2)[:, None, None].astype(np.uint8)
    images[..., 2] -= ((2 * labels - 1) * level // 2)[:, None, None].astype(np.uint8)
    labels[list(wrong)] ^= 1
    data = ImageSet(images, labels, ("blue", "red"), tuple(f"{i}.png" for i in range(count)))
    return Source("train", data, np.arange(count), digests(data), {})


def plan(size: int, attack=None, **ball) -> SetPlan:
    return SetPlan(
        name="some", split="train", size=size, attack_name="pgd", attack=attack or PGD(steps=5),
        threat_model=ThreatModel(**{"norm": "linf", "eps": EPS, **ball}),
    )  # fmt: skip


def test_holds_exactly_the_right_images_that_can_be_turned(model):
    made = Perturber(model, batch_size=5).make(plan(100), make_source(wrong=(2, 3)))
    assert [int(row["source"].removesuffix(".png")) for row in made.rows] == [
        0, 4, 6, 8, 10, 12, 14,
    ]  # fmt: skip
    assert (made.tried, made.wrong, made.end) == (14, 2, 16)
    assert made.fool_rate == 0.5
    assert [row["index"] for row in made.rows] == list(range(7))


def test_its_images_are_in_the_ball_and_misclassified_as_recorded(model):
    source = make_source()
    made = Perturber(model, batch_size=5).make(plan(100), source)
    rows = np.array([int(row["source"].removesuffix(".png")) for row in made.rows])
    clean, x = source.data.pixels(rows), made.images.images
    np.testing.assert_array_equal(made.images.labels, source.data.labels[rows])
    assert made.sources == [source.digests[row] for row in rows]
    assert x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1
    change = np.abs(x - clean).reshape(len(x), -1)
    assert change.max() <= EPS + 1e-6
    logits = model(x).numpy()
    assert (logits.argmax(1) != made.images.labels).all()
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for place, row in enumerate(made.rows):
        assert row["linf"] == pytest.approx(change[place].max())
        assert row["l2"] == pytest.approx(np.linalg.norm(change[place]))
        assert row["l0"] == (change[place].reshape(-1, 3) > 0).any(axis=1).sum()
        assert row["prediction"] == row["label"] != row["adversarial_prediction"]
        assert row["adversarial_prediction"] == logits[place].argmax()
        assert row["adversarial_confidence"] == pytest.approx(probs[place].max(), abs=1e-5)
        assert row["source_split"] == "train"


def test_sets_one_after_the_other_share_no_image_and_skip_none(model):
    source, perturber = make_source(24), Perturber(model, batch_size=5)
    first = perturber.make(plan(3), source)
    second = perturber.make(plan(4), source, first.end)
    assert len(first.rows) == 3 and len(second.rows) == 4
    assert [row["source"] for row in (*first.rows, *second.rows)] == [
        f"{i}.png" for i in range(14) if LEVELS[i % 4] < 16
    ]
    # The set ends with the image that filled it: 0, 2 and 4 of 0 to 4.
    assert (first.tried, first.end) == (5, 5)


def test_an_exhausted_source_gives_an_empty_set(model):
    made = Perturber(model).make(plan(3), make_source(), first=16)
    assert len(made.images) == 0 and made.end == 16 and made.fool_rate == 0


def test_the_same_seed_makes_the_same_set_and_another_seed_another(model):
    def images(seed):
        return Perturber(model, batch_size=5, seed=seed).make(plan(9), make_source(24)).images

    np.testing.assert_array_equal(images(1).images, images(1).images)
    assert not np.array_equal(images(1).images, images(2).images)


def test_restarts_run_on_what_still_stands(model):
    """Random noise turns few images of level 12 at once, and more with each restart."""
    once, often = (
        Perturber(model).make(plan(99, UniformNoise(tries=1, restarts=n)), make_source(80))
        for n in (1, 40)
    )
    found = {row["source"] for row in often.rows}
    assert {row["source"] for row in once.rows} < found
    assert len(found) <= 40  # half of the images can be turned at all


def test_pixels_are_counted_as_pixels(model):
    """One of four pixels moves the mean of red minus blue by up to 60 levels: all fall."""
    attack = PixelAttack(fraction=0.25, step_size=0.5)
    made = Perturber(model).make(plan(99, attack, norm="l0", eps=1.0), make_source())
    assert len(made.rows) == 16 and {row["l0"] for row in made.rows} == {1}


def test_only_images_that_it_needs_are_attacked(model):
    """Misclassified images never reach the attack."""
    seen = []

    class Spy(PGD):
        def __call__(self, model, x, y, threat_model, seed):
            seen.append(x.shape)
            return super().__call__(model, x, y, threat_model, seed)

    made = Perturber(model).make(plan(3, Spy()), make_source(4, wrong=(0, 1, 2, 3)))
    assert not seen and made.wrong == 4 and made.tried == 0


def test_labels_that_the_model_does_not_know_are_refused(model):
    source = make_source(4)
    source.data.labels[2] = 7
    with pytest.raises(TFRobustError, match="labels up to 7, .* 2 classes"):
        Perturber(model).make(plan(3), source)


def test_a_model_with_a_softmax_is_attacked_before_it(model):
    from tfrobust.runtime import tf

    found = [
        Perturber(one).make(plan(3), make_source())
        for one in (model, lambda x: tf.nn.softmax(model(x)))
    ]
    assert [row["source"] for row in found[0].rows] == [row["source"] for row in found[1].rows]


@pytest.mark.parametrize("split, size", [("select", 3), ("train", 0)])
def test_a_plan_out_of_range_is_refused(split, size):
    with pytest.raises(UsageError, match="expected the split train or test"):
        SetPlan(name="some", split=split, size=size, attack_name="pgd", attack=PGD(),
                threat_model=ThreatModel())  # fmt: skip
