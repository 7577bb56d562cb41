"""Killed and resumed, an evaluation ends with the result of an uninterrupted one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tfrobust.attacks.gradient import PGD
from tfrobust.data.types import ImageSet
from tfrobust.evaluation.checkpoint import Checkpoint
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.threat_model import ThreatModel

ATTACKS = {"pgd": PGD(steps=3, restarts=2), "again": PGD(steps=2, loss="margin", restarts=2)}
THREAT = ThreatModel("linf", 0.01)


class Killed(Exception):
    pass


@dataclass
class Mortal(Checkpoint):
    """Saves whenever it can and dies after some times."""

    def __init__(self, path, lives, **kwargs):
        super().__init__(path, "key", every=0, **kwargs)
        self.lives = lives

    def note(self):
        super().note()
        self.lives -= 1
        if self.lives == 0:
            raise Killed


def work(model, data, checkpoint):
    return evaluate(
        model, data, THREAT, ATTACKS, sweep=(0.02,), batch_size=8, checkpoint=checkpoint
    )


@pytest.fixture
def case(small_cnn):
    model = small_cnn()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3)).astype("uint8")
    y = np.argmax(model(pixels / np.float32(255), training=False), axis=1).astype("int32")
    return model, ImageSet(pixels, y, tuple("abcd"))


def facts(report):
    values = report.as_dict()
    values.pop("seconds")
    for attack in [*values["attacks"].values(), *values["sweep"]]:
        attack.pop("seconds")
    return values


@pytest.mark.parametrize("lives", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_the_result_is_the_same_wherever_it_was_killed(case, tmp_path, lives):
    model, data = case
    path = tmp_path / "progress.npz"
    whole = work(model, data, None)
    # There is something to lose: images that stand and images that fall.
    assert 0 < whole.robust.sum() < len(data)
    with pytest.raises(Killed):
        work(model, data, Mortal(path, lives))
    resumed = Checkpoint(path, "key", resume=True)
    assert resumed.resumed
    assert facts(work(model, data, resumed)) == facts(whole)
    resumed.close()
    assert not path.exists()


def test_another_key_or_a_broken_file_begins_anew(case, tmp_path):
    model, data = case
    path = tmp_path / "progress.npz"
    with pytest.raises(Killed):
        work(model, data, Mortal(path, 5))
    assert not Checkpoint(path, "other", resume=True).resumed
    assert not Checkpoint(path, "key").resumed
    path.write_bytes(path.read_bytes()[:100])
    assert not Checkpoint(path, "key", resume=True).resumed
