"""Attacks as the command line writes them: 'fgsm,pgd:steps=50:restarts=5' or 'autoattack'."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from tfrobust.attacks import ATTACKS, SUITES
from tfrobust.config import EvaluationConfig
from tfrobust.errors import UsageError
from tfrobust.settings import parse_number
from tfrobust.tables import is_place

# What --steps and --restarts are for; the other attacks have published settings.
_PLAIN = ("bim", "pgd")


def check_attacks(config: EvaluationConfig) -> None:
    """Refuses unknown names before anything long begins.

    Raises:
      UsageError: an attack or suite is unknown, or a setting is not NAME=VALUE; or there is
        no attack at all.
    """
    if not config.attacks:
        raise UsageError("--attack: expected at least one attack or suite, found none.")
    for text in config.attacks:
        name, _ = _parse(text)
        if name not in ATTACKS and name not in SUITES:
            raise UsageError(
                f"Unknown attack {name!r}: expected some of "
                f"{', '.join([*ATTACKS, *SUITES])}, comma-separated."
            )


def make_attacks(config: EvaluationConfig, classes: int | None = None) -> dict[str, Any]:
    """name -> attack, in order of cost; a suite's attacks in its published order.

    Args:
      config: the evaluation's settings.
      classes: of the model; a suite takes other losses where they are few.

    Raises:
      UsageError: a name, or a setting of an attack, is unknown or out of range.
    """
    check_attacks(config)
    attacks: dict[str, Any] = {}
    order = {name: place for place, name in enumerate(ATTACKS)}
    named = [_parse(text) for text in config.attacks]
    plain = [item for item in named if item[0] in ATTACKS]
    for name, settings in sorted(plain, key=lambda item: order.get(item[0], len(order))):
        if name in _PLAIN:
            defaults = {"steps": config.steps, "restarts": config.restarts}
            settings = {**_taken(name, defaults), **settings}
        attacks[name] = make_attack(name, settings)
    for name, settings in named:
        if name in SUITES:
            attacks.update(_suite(name, settings, classes))
    return attacks


def make_attack(name: str, settings: dict[str, Any]) -> Any:
    """One attack with some of its settings, given as text or as values.

    Raises:
      UsageError: a setting is unknown or out of range.
    """
    builder = ATTACKS[name]
    cls = type(builder()) if not isinstance(builder, type) else builder
    hints = typing.get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls) if item.init]
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise UsageError(f"Attack {name}: unknown setting {key!r}: expected {_list(known)}.")
        values[key] = _value(value, hints[key]) if isinstance(value, str) else value
    return dataclasses.replace(builder(), **values) if values else builder()


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    name, *settings = text.strip().split(":")
    own = name not in ATTACKS and name not in SUITES
    if own and settings and "=" not in settings[0] and is_place(f"{name}:{settings[0]}"):
        name = f"{name}:{settings.pop(0)}"  # an attack of the user's own
    pairs = [part.partition("=") for part in settings]
    if not all(equals and value for _, equals, value in pairs):
        raise UsageError(f"--attack: expected NAME or NAME:SETTING=VALUE, found {text!r}.")
    return name, {key: value for key, _, value in pairs}


def _taken(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    known = {item.name for item in dataclasses.fields(ATTACKS[name]) if item.init}
    return {key: value for key, value in settings.items() if key in known}


def _value(text: str, hint: Any) -> Any:
    options = [each for each in typing.get_args(hint) if each is not type(None)] or [hint]
    if bool in options:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"Expected true or false, found {text!r}.")
        return text.lower() == "true"
    if options[0] is str:
        return text
    number = parse_number(text)
    return int(number) if options[0] is int and number == int(number) else number


def _suite(name: str, settings: dict[str, Any], classes: int | None) -> dict[str, Any]:
    if settings:
        raise UsageError(f"{name} has its published settings: expected none, found {settings}.")
    from tfrobust.attacks.autoattack import autoattack

    found: dict[str, Any] = autoattack(SUITES[name], classes)
    return found


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
