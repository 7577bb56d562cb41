"""Attacks as written on the command line: 'fgsm,pgd:steps=50:restarts=5' or 'autoattack'."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrobust.attacks import ATTACKS, QUICK, SUITES
from tfrobust.config import EvaluationConfig
from tfrobust.errors import UsageError
from tfrobust.plugins import configured, parse, settings_of, split
from tfrobust.typing import Attack


def check_attacks(config: EvaluationConfig) -> None:
    """Rejects unknown names before anything slow starts.

    Raises:
      UsageError: an attack or suite is unknown, a setting is not NAME=VALUE, or no attack is
        given.
    """
    if not _parsed(config):
        raise UsageError("--attack: expected at least one attack or suite, found none.")
    for name, _ in _parsed(config):
        if name not in ATTACKS and name not in SUITES:
            raise UsageError(
                f"Unknown attack {name!r}: expected some of "
                f"{', '.join([*ATTACKS, *SUITES])}, comma-separated."
            )


def make_attacks(
    config: EvaluationConfig, classes: int | None = None, norm: str = "linf"
) -> dict[str, Attack]:
    """name -> attack, in order of cost; the attacks of a suite keep its published order.

    Args:
      config: the evaluation's settings.
      classes: of the model; a suite uses other losses if there are few.
      norm: of the ball; suites choose attacks that support it.

    Raises:
      UsageError: a name, or a setting of an attack, is unknown or out of range.
    """
    check_attacks(config)
    attacks: dict[str, Attack] = {}
    order = {name: place for place, name in enumerate(ATTACKS)}
    named = _parsed(config)
    plain = [item for item in named if item[0] in ATTACKS]
    for name, settings in sorted(plain, key=lambda item: order.get(item[0], len(order))):
        # The attacks that --steps and --restarts apply to; the others have published settings.
        if name in ATTACKS.built_in and getattr(ATTACKS[name], "takes_budget", False):
            settings = {**_applicable(name, _budget(config)), **settings}
        if name in ATTACKS.built_in and config.queries is not None:
            settings = {**_applicable(name, {"queries": config.queries}), **settings}
        attacks[name] = make_attack(name, settings)
    for name, settings in named:
        if name == QUICK:
            attacks.update(_quick(settings, classes, norm, config))
        elif name in SUITES:
            attacks.update(_suite(name, settings, classes, norm))
    return attacks


def make_attack(name: str, settings: dict[str, Any]) -> Attack:
    """One attack with some of its settings, given as text or values.

    Raises:
      UsageError: a setting is unknown or out of range.
    """
    return configured(ATTACKS[name], settings, f"Attack {name}")


def _parsed(config: EvaluationConfig) -> list[tuple[str, dict[str, str]]]:
    """(name, settings as text) of each attack; 'pgd:steps=5,restarts=2' is one attack."""
    texts = split(",".join(config.attacks))
    return [parse(text, {*ATTACKS, *SUITES}, "--attack") for text in texts]


def _applicable(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    known = settings_of(ATTACKS[name])
    return {key: value for key, value in settings.items() if key in known}


def _budget(config: EvaluationConfig) -> dict[str, Any]:
    return {"steps": config.steps, "restarts": config.restarts}


def _quick(
    settings: dict[str, Any], classes: int | None, norm: str, config: EvaluationConfig
) -> dict[str, Attack]:
    from tfrobust.attacks.quick import quick

    if settings:
        raise UsageError(f"{QUICK} has fixed settings: expected none, found {settings}.")
    return {
        name: dataclasses.replace(attack, **_budget(config))
        if getattr(attack, "takes_budget", False)
        else attack
        for name, attack in quick(norm, classes).items()
    }


def _suite(name: str, settings: dict[str, Any], classes: int | None, norm: str) -> dict[str, Any]:
    if settings:
        raise UsageError(f"{name} has its published settings: expected none, found {settings}.")
    from tfrobust.attacks.autoattack import autoattack

    found: dict[str, Any] = autoattack(SUITES[name], classes, norm)
    return found
