"""Distances of every image: exact on a linear model, verified, drawn and saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import tfrobust as tr
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.figures.distances import MinimalDistancesFigure
from tfrobust.radii.distances import MinimalDistances, distance_curves

DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def case(linear_model, count=24):
    """A model of two classes, images, labels with three wrong ones, and the gap of the logits."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(12, 2))
    model = linear_model(weights, -0.5 * weights.sum(axis=0))
    images = rng.integers(90, 166, (count, 2, 2, 3)).astype("uint8")
    flat, w = images.reshape(count, -1) / 255, weights[:, 1] - weights[:, 0]
    gap = (flat - 0.5) @ w
    y = (gap > 0).astype("int32")
    y[:3] = 1 - y[:3]
    return model, (images, y), np.where(np.arange(count) < 3, 0.0, np.abs(gap)), w


@pytest.mark.parametrize(
    ("attack", "norm"),
    [("deepfool", "l2"), ("deepfool", "linf"), ("fmn", "l1"), ("fmn", "linf"), ("ddn", None),
     ("fab:early_stop=false:steps=10", "l2")],
)  # fmt: skip
def test_distances_of_a_linear_model_are_exact(attack, norm, linear_model):
    model, data, gap, w = case(linear_model)
    found = tr.minimal_distance(model, data, attack, norm, batch_size=7)
    assert found.norm == (norm or "l2") and found.found == 1.0
    exact = gap / np.linalg.norm(w, DUAL[found.norm])
    np.testing.assert_allclose(found.distances, exact, rtol=0.005, atol=2e-6)
    assert np.all(found.distances >= exact - 2e-6)
    # One run tells the accuracy at every radius, the clean one at 0.
    assert found.accuracy(0) == found.clean_accuracy == 21 / 24
    for eps in (0.5 * np.median(exact), 1.5 * np.median(exact)):
        assert found.accuracy(eps) == np.mean(exact > eps)
    assert found.median == pytest.approx(np.median(exact[3:]), rel=0.005)
    radii, accuracy = found.curve()
    assert radii[0] == 0 and np.all(np.diff(radii) > 0) and np.all(np.diff(accuracy) < 0)
    assert accuracy[-1] == 0


def test_a_minimal_attack_agrees_with_the_evaluation_in_a_ball(linear_model):
    model, data, _, _ = case(linear_model)
    found = tr.minimal_distance(model, data, "ddn")
    for eps in (0.5 * found.median, 2 * found.median):
        report = tr.evaluate(model, data, tr.L2(eps), "ddn")
        assert report.robust_accuracy == pytest.approx(found.accuracy(eps))


@dataclass(frozen=True, kw_only=True)
class Claims(Attack):
    """Returns what is no adversarial image: x itself, or one that is not inside the bounds."""

    minimal: ClassVar[bool] = True
    restarts: int = 1
    shift: float = 0.0

    def __call__(self, model, x, y, ball, seed):
        return x + self.shift


def test_what_an_attack_claims_is_verified(linear_model):
    model, data, _, _ = case(linear_model)
    found = tr.minimal_distance(model, data, Claims())
    assert np.isinf(found.distances[3:]).all() and found.found == 0 and np.isinf(found.median)
    assert found.accuracy(100.0) == found.clean_accuracy
    # Outside the bounds it is clipped, and measured where it is.
    clipped = tr.minimal_distance(model, data, Claims(shift=5.0)).distances
    exact = np.linalg.norm((1 - data[0] / 255).reshape(24, -1), axis=1)
    some = np.isfinite(clipped) & (clipped > 0)
    assert some.any()
    np.testing.assert_allclose(clipped[some], exact[some], rtol=1e-5)


def test_attacks_that_are_content_with_a_ball_and_norms_are_refused(linear_model):
    model, data, _, _ = case(linear_model)
    for attack in ("pgd", "fab", "fmn:early_stop=true"):
        with pytest.raises(UsageError, match="nearest"):
            tr.minimal_distance(model, data, attack)
    with pytest.raises(UsageError, match="linf"):
        tr.minimal_distance(model, data, "ddn", "linf")


def distances(values, attack="fmn", norm="l2"):
    found = np.array(values, float)
    return MinimalDistances("model", attack, norm, np.zeros(len(found), int), found, 2)


def test_percentiles_by_hand():
    found = distances([0, 1, 2, 3, 4, np.inf])
    assert found.median == 3 and found.percentile(25) == 2 and found.percentile(0) == 1
    assert found.percentile(12.5) == 1.5 and np.isinf(found.percentile(90))
    assert found.found == 0.8 and found.accuracy(2) == 0.5 and found.accuracy(9) == 1 / 6
    assert found.as_dict()["median"] == 3 and found.as_dict()["percentiles"]["90"] is None
    assert "none found" in str(found)
    nothing = distances([0, 0])
    assert nothing.median == 0 and nothing.found == 0 and nothing.clean_accuracy == 0


def test_saved_and_drawn(tmp_path):
    one, other = distances([0, 1, 2, np.inf]), distances([0, 0.5, np.inf, np.inf], "ddn")
    paths = one.save(tmp_path / "new")
    assert [path.suffix for path in paths] == [".json", ".csv", ".png"]
    assert json.loads(paths[0].read_text())["num_examples"] == 4
    assert paths[1].read_text().splitlines()[3:] == ["2,0,2", "3,0,inf"]
    axes = MinimalDistancesFigure().draw(distance_curves([one, other])).axes[0]
    # Each median is marked at the accuracy there.
    dots = [line.get_xydata()[0].tolist() for line in axes.get_lines() if line.get_marker() == "o"]
    expected = [[one.median, one.accuracy(one.median)] for one in (one, other)]
    assert dots == [pair for pair in expected if np.isfinite(pair[0]) and pair[0]] and dots
    distances([np.inf, np.inf]).save(tmp_path / "none")
    with pytest.raises(UsageError, match="l1, l2"):
        distance_curves([one, distances([1], norm="l1")])
    with pytest.raises(UsageError, match="none"):
        distance_curves([])
