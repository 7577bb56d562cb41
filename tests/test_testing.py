"""The contract suites that plug-ins of others import, over our own tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from tfrobust.attacks import ATTACKS
from tfrobust.attacks.gradient import PGD
from tfrobust.backbones import BACKBONES
from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.explain import EXPLAINERS
from tfrobust.export import FORMATS
from tfrobust.runtime import keras, tf
from tfrobust.settings import from_dict
from tfrobust.testing import (
    check_attack,
    check_backbone,
    check_explainer,
    check_method,
    check_settings,
)
from tfrobust.training import METHODS

ALL = ("linf", "l2", "l1")
NORMS = {"fgsm": ALL, "bim": ALL, "pgd": ALL, "fab": ALL, "fab-t": ALL, "pixel": ("l0",),
         "optimised-noise": ALL, "uniform-noise": ALL, "gaussian-noise": ALL,
         "simba": ("l2",), "spsa": ("linf",), "boundary": ("l2",)}  # fmt: skip
SHORT = {"steps": 2, "searches": 2, "queries": 10, "restarts": 1, "draws": 2}


def cases():
    """Each attack in each of its norms, on images of one channel and of three.

    By default a case of each attack runs, in turn another.
    """
    for place, name in enumerate(ATTACKS):
        norms = NORMS.get(name, ATTACKS[name]().norms)
        every = [(norm, channels) for norm in norms for channels in (1, 3)]
        for number, (norm, channels) in enumerate(every):
            marks = [] if number == place % len(every) else [pytest.mark.slow]
            yield pytest.param(name, norm, channels, marks=marks)


@pytest.mark.parametrize(("name", "norm", "channels"), cases())
def test_every_attack_keeps_the_contract(name, norm, channels):
    attack = ATTACKS[name]()
    known = {item.name for item in dataclasses.fields(attack) if item.init}
    short = {key: value for key, value in SHORT.items() if key in known}
    check_attack(dataclasses.replace(attack, **short), (norm,), (channels,))


@pytest.mark.parametrize("name", list(EXPLAINERS))
def test_every_explainer_keeps_the_contract(name):
    check_explainer(EXPLAINERS[name])
    check_settings(EXPLAINERS[name])


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_keeps_the_contract(name):
    check_method(METHODS[name](attack=PGD(steps=1)))


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_keeps_its_settings(name):
    check_settings(FORMATS[name])


@pytest.mark.parametrize("name", list(BACKBONES))
def test_no_network_takes_a_setting_that_it_does_not_have(name):
    for settings in ({"no_such_setting": 1}, {"no_such_setting": "1"}):
        with pytest.raises(UsageError):
            BACKBONES[name].checked(settings)
        with pytest.raises(UsageError):
            from_dict(RunConfig, {"backbone": {"name": name, **settings}})


def test_what_breaks_a_contract_is_told():
    @dataclass(frozen=True, kw_only=True)
    class Drawn(PGD):
        def __call__(self, model, x, y, ball, seed):
            return x + tf.random.uniform(tf.shape(x), maxval=0.01)

    with pytest.raises(AssertionError, match="different images"):
        check_attack(Drawn())
    with pytest.raises(AssertionError, match="class"):
        check_explainer(lambda model, x, target: np.abs(x))
    with pytest.raises(AssertionError, match="gradient"):
        check_backbone(lambda x: keras.layers.Conv2D(3, 3)(tf.round(x)))
    check_backbone(lambda x: keras.layers.Conv2D(3, 3)(x))

    @dataclass
    class Loose:
        gamma: float = 1.0

    with pytest.raises(AssertionError, match="frozen"):
        check_settings(Loose)
