"""What the evaluator says of the accuracy so far, beside its progress."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import FGSM, PGD
from tfrobust.data.types import ImageSet
from tfrobust.evaluation import evaluator as module
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.threat_model import ThreatModel

CLASSES = 7


class Recorder:
    """Keeps what the progress was told."""

    made: list[Recorder]

    def __init__(self, label, total, *, done=0):
        self.label, self.told = label, []
        self.made.append(self)

    def update(self, done, note=""):
        self.told.append((done, note))

    def close(self):
        pass


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(Recorder, "made", [], raising=False)
    monkeypatch.setattr(module, "Progress", Recorder)
    return Recorder.made


@pytest.fixture
def case(linear_model):
    """A linear model of 7 classes and 40 images with labels of which some are wrong."""
    rng = np.random.default_rng(0)
    model = linear_model(rng.normal(size=(12, CLASSES)), np.zeros(CLASSES))
    images = rng.integers(0, 256, (40, 2, 2, 3)).astype("uint8")
    logits = model(images.astype("float32") / 255).numpy()
    labels = np.where(rng.random(40) < 0.5, logits.argmax(axis=1), rng.integers(0, CLASSES, 40))
    data = ImageSet(images, labels.astype("int32"), tuple("abcdefg"))
    order = np.argsort(-logits, axis=1)
    return model, data, order[:, 0] == labels, (order[:, :5] == labels[:, None]).any(axis=1)


def shown(top1, top5):
    return f"(top-1 {np.mean(top1):.3f}, top-5 {np.mean(top5):.3f})"


def test_clean_accuracy_is_of_the_images_done(case, recorded):
    model, data, top1, top5 = case
    Evaluator(model, data, batch_size=8)
    (clean,) = recorded
    # Batches of 8, a few at once.
    assert len(clean.told) > 1 and clean.told[-1][0] == 40
    assert clean.told == [(n, shown(top1[:n], top5[:n])) for n, _ in clean.told]
    assert len({note for _, note in clean.told}) > 1


def test_under_attack_it_is_of_all_images_what_still_stands(case, recorded):
    model, data, top1, top5 = case
    evaluator = Evaluator(model, data, batch_size=4)
    outcome = evaluator.run("fgsm", FGSM(), ThreatModel("linf", 0.1)).outcome
    attacked = np.flatnonzero(top1)
    fell = np.flatnonzero(top1 & ~outcome.correct)
    assert 0 < len(fell) < len(attacked)
    told = recorded[-1].told
    assert len(told) > 1 and told[-1] == (len(attacked), shown(outcome.correct, outcome.in_top5))
    for done, note in told:
        seen = np.isin(np.arange(40), attacked[:done])
        assert note == shown(
            np.where(seen, outcome.correct, top1), np.where(seen, outcome.in_top5, top5)
        )


def test_a_later_restart_goes_on_from_what_stood(case, recorded):
    model, data, *_ = case
    attack = PGD(steps=1, step_size=0.02, restarts=2)
    result = Evaluator(model, data).run("pgd", attack, ThreatModel("linf", 0.05))
    first, second = (each.told[-1][1] for each in recorded[-2:])
    assert recorded[-1].label.endswith("restart 2")
    assert second == shown(result.outcome.correct, result.outcome.in_top5)
    assert float(first[7:12]) >= float(second[7:12])


def test_crafting_has_no_accuracy_to_tell(case, recorded):
    model, data, *_ = case
    Evaluator(model, data).craft(FGSM(), ThreatModel("linf", 0.1), np.arange(10))
    assert {note for _, note in recorded[-1].told} == {""}
