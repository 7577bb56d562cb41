"""Default settings by images, network, weights, radius and time.

These apply when the user gives no flag. The numbers were measured on small machines, on real
images (`python -m benchmarks.learns` repeats that); every choice comes with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfrobust.config import RunConfig, ThreatConfig, TrainingConfig, folded_method
from tfrobust.settings import from_dict, merge
from tfrobust.training import METHODS

if TYPE_CHECKING:
    from tfrobust.backbones.description import Backbone

#: The name that leaves the choice of the network to `choose`.
AUTO = "auto"
# The shares of training on clean images only, and of the following rise of eps: from scratch,
# and from pretrained weights, whose head learns from clean images first.
_CLEAN, _RAMP = 0.25, 0.25
# The same for networks that learn quickly and soon overfit.
_CLEAN_QUICK, _RAMP_QUICK = 0.1, 0.2
_CLEAN_PRETRAINED, _RAMP_PRETRAINED = 0.0, 0.3
# NSL's multiplier, next to a clean loss of weight 1.
_ADV_WEIGHT, _ADV_WEIGHT_SPLIT = 3.0, 6.0
# Images seen in training without a time limit, from scratch and from pretrained weights.
_SEEN, _SEEN_PRETRAINED = 250_000, 40_000
_EVALUATED = 1000
# Throughput on 2 cores: billions of multiply-adds of a forward pass times images per second, for
# resnet50 at 32x32, crafting and clean steps included.
_PACE = 6.0
# Below this number of images a network learns more with smaller maps.
_ENOUGH = 20_000
_JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
# Image sizes of pretrained weights, for networks that do not declare theirs.
_SIDES = (96, 128, 160, 192, 224)


@dataclass(frozen=True)
class Facts:
    """What is known before training.

    Attributes:
      side: the shorter side of the images, in pixels.
      images: number in train.
      classes: number in train.
      tested: number of images in test.
      symbols: whether the class names are digits or letters, which flips turn into others.
    """

    side: int
    images: int
    classes: int
    tested: int
    symbols: bool = False


@dataclass
class Choice:
    """Settings, nested as in YAML, and the reason for each choice.

    Attributes:
      values: arguments of `RunConfig`.
      reasons: one line for each choice that the user did not make.
    """

    values: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def add_to_method(self, given: Mapping[str, Any], reason: str, **values: Any) -> None:
        """Like `add`, for settings of the method."""
        user = folded_method(given.get("training", {}), "training").settings
        left = {k: v for k, v in values.items() if k not in user}
        self.values.setdefault("training", {})["method"] = left
        if left:
            self.reasons.append(reason)

    def add(self, given: Mapping[str, Any], group: str, reason: str, **values: Any) -> None:
        """Sets what the user has not given; records the reason if that is anything."""
        left = {k: v for k, v in values.items() if k not in given.get(group, {})}
        self.values[group] = {**self.values.get(group, {}), **left}
        if left and reason:
            self.reasons.append(reason)


def choose(
    facts: Facts,
    given: Mapping[str, Any],
    epochs: int | None = None,
    learning_rate: float | None = None,
) -> Choice:
    """Settings that suit these images, for everything that the user has not set.

    Args:
      facts: of the images.
      given: the user's settings, nested as in YAML.
      epochs: number of epochs, unless chosen too.
      learning_rate: the highest rate of all stages, unless chosen too.

    Returns:
      Defaults for `given`.
    """
    choice = Choice()
    pretrained = given.get("backbone", {}).get("weights", "none") != "none"
    name = _network(choice, facts, given, pretrained)
    _fit_to_side(choice, facts, given, name, pretrained)
    length = _Length(facts, given, epochs, learning_rate)
    (_fine_tuning if pretrained else _from_scratch)(choice, facts, given, name, length)
    _method(choice, facts, given, name, pretrained)
    _measuring(choice, facts, given)
    return choice


def chosen_config(
    facts: Facts,
    given: Mapping[str, Any],
    epochs: int | None = None,
    learning_rate: float | None = None,
) -> RunConfig:
    """The whole configuration: the choices, overridden by the user's settings.

    Raises:
      UsageError: the user's settings contradict each other.
    """
    user = {**given, "training": TrainingConfig.folded(given.get("training", {}))}
    if user.get("backbone", {}).get("name") == AUTO:
        user["backbone"] = {k: v for k, v in user["backbone"].items() if k != "name"}
    choice = choose(facts, user, epochs, learning_rate)
    values = merge(merge(choice.values, user), {"chosen": choice.reasons})
    config: RunConfig = from_dict(RunConfig, values, "flags")
    return config


def _network(choice: Choice, facts: Facts, given: Mapping[str, Any], pretrained: bool) -> str:
    """The network's name: the user's, or the one that scored best."""
    named = given.get("backbone", {}).get("name")
    if named:
        return str(named)
    if pretrained:
        name = _named_in(str(given["backbone"]["weights"])) or "mobilenetv2"
        why = "the network of the weights, by their file name"
    else:
        name, why = "resnet18", "it scored best from scratch within minutes on a small machine"
    choice.add(given, "backbone", f"network: {name}; {why}", name=name)
    return name


def _named_in(weights: str) -> str | None:
    """The network in a weights file's name, such as 'resnet18-f37072fd.pth'."""
    from tfrobust.backbones import BACKBONES

    name = weights.rpartition("/")[2].lower().replace("_", "").replace("-", "")
    found = [one for one in BACKBONES if one.replace("_", "") in name]
    return max(found, key=len, default=None)


def _fit_to_side(
    choice: Choice, facts: Facts, given: Mapping[str, Any], name: str, pretrained: bool
) -> None:
    """A stem or a resize that keeps a small image from shrinking to nothing."""
    from tfrobust.backbones import BACKBONES

    backbone, chosen = BACKBONES[name], given.get("backbone", {})
    if "stem" in chosen or "resize" in chosen:
        return
    if pretrained:
        side = _side_for_weights(backbone, facts.side)
        if side != facts.side:
            reason = f"images are resized to {side}x{side} , near the weights' own size"
            choice.add(given, "backbone", reason, resize=side)
        return
    if facts.side < 32:
        choice.add(given, "backbone", "images are resized to 32x32, the minimum of all networks",
                   resize=32)  # fmt: skip
    side = max(facts.side, 32)
    if side >= 2 * backbone.stride:
        return
    if _is_slow(facts, given, backbone):
        return
    left = f"{-(-side // backbone.stride)}x{-(-side // backbone.stride)} of {side} pixels"
    if "stem" in backbone.options:
        choice.add(given, "backbone", f"stem: medium, since {name}'s standard stem leaves {left}",
                   stem="medium")  # fmt: skip
    else:
        choice.add(given, "backbone", f"images are resized to {2 * backbone.stride} pixels, since "
                   f"{name} leaves {left}", resize=2 * backbone.stride)  # fmt: skip


@dataclass(frozen=True)
class _Length:
    """How long and how fast to train."""

    facts: Facts
    given: Mapping[str, Any]
    epochs: int | None
    learning_rate: float | None

    def number(self, seen: int, low: int, high: int) -> int:
        """The number of epochs in which the network sees about `seen` images, within bounds."""
        wanted = round(seen / max(self.facts.images, 1))
        return self.epochs or int(min(max(wanted, low), high))

    def rates(self, *rates: float) -> list[float]:
        """The stages' learning rates; the user's rate, if given, is the highest."""
        if self.learning_rate is None:
            return list(rates)
        return [rate * self.learning_rate / max(rates) for rate in rates]

    def text(self, epochs: int) -> str:
        """The length, for messages."""
        minutes = self.given.get("training", {}).get("time_limit")
        return f"{epochs} epochs" if minutes is None else f"as long as {minutes:g} min allow"


def _is_slow(facts: Facts, given: Mapping[str, Any], backbone: Backbone) -> bool:
    """Whether a wider stem leaves time for too few images, or for less than two passes."""
    minutes = given.get("training", {}).get("time_limit")
    if minutes is None or not backbone.gmacs:
        return False
    # Halving the stem's stride doubles the width and height of all maps.
    each = 4 * backbone.gmacs * (max(facts.side, 32) / 224) ** 2
    return bool(minutes * 60 * _PACE / each < max(2 * facts.images, _ENOUGH))


def _side_for_weights(backbone: Backbone, side: int) -> int:
    """Twice a small image's side, at most the weights' smallest size; else the largest fitting."""
    known = backbone.sides or _SIDES
    if 2 * side <= known[0]:
        return max(2 * side, 64)
    return max((one for one in known if one <= side), default=known[0])


def _from_scratch(
    choice: Choice, facts: Facts, given: Mapping[str, Any], name: str, length: _Length
) -> None:
    """A clean model first, full eps later, with the network's preferred optimiser."""
    from tfrobust.backbones import BACKBONES

    backbone = BACKBONES[name]
    tuning = backbone.tuning
    if tuning.alpha != 1:
        choice.add(given, "backbone", f"width: {tuning.alpha:g} of {name}'s channels, to see "
                   "more images in the same time", alpha=tuning.alpha)  # fmt: skip
    choice.add(given, "backbone", "", bn_momentum=0.9 if backbone.batch_norm else None)
    epochs = length.number(_SEEN, 8, 80)
    (rate,) = length.rates(tuning.learning_rate)
    stage = {
        "blocks": "all", "epochs": epochs, "learning_rate": rate,
        "schedule": "linear", "warmup_epochs": round(0.075 * epochs, 3),
    }  # fmt: skip
    choice.add(
        given, "training",
        f"training: {tuning.optimizer}, learning rate {rate:g} after a warm-up, then "
        f"linearly to 0, {length.text(epochs)}; averaged weights"
        f"{', smoothed labels' if tuning.quick else ''}",
        optimizer=tuning.optimizer, weight_decay=tuning.weight_decay, clip_norm=1.0,
        batch_size=tuning.batch_size if facts.images >= 2560 else 64, ema=0.999, stages=[stage],
        label_smoothing=0.1 if tuning.quick else 0.0,
        precision="auto" if tuning.low_precision else "float32",
    )  # fmt: skip
    _augmented(choice, facts, given, _JITTER if tuning.quick else {})


def _fine_tuning(
    choice: Choice, facts: Facts, given: Mapping[str, Any], name: str, length: _Length
) -> None:
    """Staged unfreezing: the head on clean images, then the whole network."""
    epochs = length.number(_SEEN_PRETRAINED, 6, 20)
    head = max(1, round(0.1 * epochs))
    rates = length.rates(0.005, 0.001)
    stages = [
        {"blocks": "head", "epochs": head, "learning_rate": rates[0]},
        {"blocks": "all", "epochs": max(epochs - head, 2), "learning_rate": rates[1],
         "warmup_epochs": 0.5},
    ]  # fmt: skip
    choice.add(
        given, "training",
        f"training: staged unfreezing with adam, the head alone at {rates[0]:g} on clean images, "
        f"then all blocks from {rates[1]:g} to 0 along a cosine, {length.text(epochs)}; averaged "
        "weights",
        optimizer="adam", batch_size=64, ema=0.99, stages=stages,
    )  # fmt: skip
    choice.add(given, "backbone", "", bn_momentum=0.9)
    _augmented(choice, facts, given, {})


def _augmented(
    choice: Choice, facts: Facts, given: Mapping[str, Any], further: Mapping[str, float]
) -> None:
    crop = max(facts.side // 8, 1)
    flip = not facts.symbols
    what = f"random crops of up to {crop} pixels" + (", flips" if flip else "")
    why = "" if flip else "; no flips, since the class names are digits or letters"
    what += ", colour jitter" if further else ""
    choice.add(given, "augment", f"augmentation: {what}{why}", flip=flip, crop_padding=crop,
               **further)  # fmt: skip


def _method(
    choice: Choice, facts: Facts, given: Mapping[str, Any], name: str, pretrained: bool
) -> None:
    """How examples are crafted: in one step from wide noise if the method supports it."""
    from tfrobust.backbones import BACKBONES

    named = folded_method(given.get("training", {}), "training").name
    method = METHODS[named or TrainingConfig().method.name]
    if not method.needs_attack:
        return
    quick = BACKBONES[name].tuning.quick
    start, ramp = (_CLEAN_QUICK, _RAMP_QUICK) if quick else (_CLEAN, _RAMP)
    if pretrained:
        start, ramp = _CLEAN_PRETRAINED, _RAMP_PRETRAINED
    begin = f"after {start:.0%} of training on clean images " if start else ""
    choice.add(
        given, "training", f"{begin}eps rises from 0 over {ramp:.0%} of training",
        clean_start=start, eps_ramp=ramp,
    )  # fmt: skip
    if method.weighs_losses:
        # With one or two passes, twice as many images teach more than both losses on each image.
        slow = _is_slow(facts, given, BACKBONES[name])
        _weights(choice, given, split=quick or pretrained or slow)


def _weights(choice: Choice, given: Mapping[str, Any], split: bool) -> None:
    """NSL's losses: both on every image, or, which is faster, each on its part of a batch."""
    weight = _ADV_WEIGHT_SPLIT if split else _ADV_WEIGHT
    part = f", 1 in {weight + 1:g} images of a batch clean, the others" if split else ", the latter"
    choice.add_to_method(
        given,
        f"loss: clean + {weight:g} x adversarial{part} crafted in one step from noise wider than "
        "the ball (N-FGSM), monitored for collapse",
        crafting="nfgsm", clean_weight=1.0, adv_weight=weight, split_batch=split,
    )  # fmt: skip


def _measuring(choice: Choice, facts: Facts, given: Mapping[str, Any]) -> None:
    """The cost of 'select' and of the evaluation: a small part of training."""
    select = facts.images // 9
    attacked = min(select, 512)
    every = max(1, round(attacked * 8 / (0.3 * max(facts.images, 1))))
    choice.add(given, "training", "", select_limit=max(attacked, 1), select_every=every)
    eps = given.get("threat", {}).get("eps", ThreatConfig().eps)
    choice.add(given, "evaluation", "", steps=20, restarts=2, sweep=[eps / 4, eps / 2])
    if facts.tested > _EVALUATED:
        choice.add(
            given, "evaluation",
            f"evaluation: {_EVALUATED:,} of the {facts.tested:,} test images, drawn by the seed "
            "(--limit changes the number)",
            limit=_EVALUATED,
        )  # fmt: skip
