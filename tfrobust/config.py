"""Frozen dataclasses for a run.

Every field is one setting with its default, its meaning (`help`: the command line
shows it) and its range, which is checked when the object is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from tfrobust.errors import UsageError
from tfrobust.plugins import (
    Choice,
    Settings,
    all_settings,
    configured,
    differing,
    from_text,
    parse,
    settings_of,
    values_of,
)
from tfrobust.settings import Checked, setting
from tfrobust.tables import Table, imported

NORMS = ("linf", "l2", "l1", "l0")
STEMS = ("standard", "medium", "small")
CONVOLUTIONS = ("keras", "unfold")
BATCH_NORM = ("clean", "adversarial", "both", "none")
SCHEDULES = ("constant", "cosine", "linear", "step", "piecewise")
CRAFTING = ("pgd", "nfgsm")
GOALS = ("none", "least_likely", "second", "random")
# Where the training methods are named: the room is below this one, and is asked by place, as a
# table asks for its plug-ins.
_METHODS = "tfrobust.training:METHODS"
_METHOD = "nsl"
_BACKBONES = "tfrobust.backbones:BACKBONES"
# Further names of settings of a backbone.
_ALIASES = {"width": "alpha"}


@dataclass(frozen=True)
class DataConfig(Checked):
    """Which images, and how they are split."""

    dataset: str = setting(
        "digits", "data set: a built-in name, or a folder, zip, .npz or .pt file", alias="data"
    )
    data_dir: str | None = setting(None, "where a built-in data set's files are, or go to")
    image_size: int | None = setting(None, "resize all images to this side, in pixels", low=8)
    select_fraction: float = setting(
        0.1, "part of train set aside for model selection", above=0, high=0.9
    )
    test_fraction: float = setting(
        0.2, "part taken for test where the source has no test split", above=0, high=0.9
    )
    # Of a later command on a run, whose seed is that of attacks: nobody sets it.
    split_seed: int | None = None
    limit_train: int | None = setting(None, "use only this many training images", low=1)
    augment_with: str | None = setting(
        None, "perturbed set to train on as well: an .npz file of pipelines.perturb"
    )
    pixel_range: tuple[float, ...] = setting(
        (), "LOW,HIGH: what the pixels of a file range over, where that is not 0..255 or [0, 1]"
    )
    skip_broken: bool = setting(False, "leave broken images out, with a list, instead of failing")
    cache_dir: str | None = setting(None, "where unpacked archives and caches go")
    memory_limit: float = setting(
        4.0, "gigabytes of decoded images kept in memory; more are mapped from disk", low=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixel_range and not (
            len(self.pixel_range) == 2 and self.pixel_range[0] < self.pixel_range[1]
        ):
            raise UsageError(
                f"pixel_range: expected LOW,HIGH with LOW below HIGH, found {self.pixel_range}."
            )


@dataclass(frozen=True)
class AugmentConfig(Checked):
    """Augmentation of training images; a strength of 0 switches a step off."""

    flip: bool = setting(False, "flip images left to right, half of the time")
    crop_padding: int = setting(0, "random crop after padding by this many pixels", low=0)
    brightness: float = setting(0.0, "brightness jitter: factor in 1 +- this", low=0, high=1)
    contrast: float = setting(0.0, "contrast jitter: factor in 1 +- this", low=0, high=1)
    saturation: float = setting(0.0, "saturation jitter: factor in 1 +- this", low=0, high=1)
    hue: float = setting(0.0, "hue jitter: +- this part of the colour circle", low=0, high=0.5)
    gaussian_noise: float = setting(0.0, "standard deviation of Gaussian noise", low=0, high=1)
    poisson_noise: float = setting(0.0, "strength of Poisson (shot) noise", low=0, high=1)
    salt_pepper: float = setting(0.0, "part of pixels turned black or white", low=0, high=1)


@dataclass(frozen=True)
class BackboneConfig(Checked):
    """Which network, and what it starts from."""

    name: str = setting("mobilenetv2", "network architecture", flag="backbone")
    weights: str = setting(
        "none",
        "imagenet (download), none (from scratch), or a local file: .h5, .keras, or a torch "
        "state dict (.pth)",
    )
    alpha: float = setting(
        1.0,
        "factor on the channels of mobilenetv2, resnet18, resnet34, the simplenets and vit",
        above=0,
    )
    stem: str = setting(
        "standard",
        "first layers: standard, or medium and small, which halve small images once or twice less",
        choices=STEMS,
    )
    convolution: str = setting(
        "keras",
        "convolution of the simplenets: Keras's, or our own by unfolding",
        choices=CONVOLUTIONS,
    )
    position_embedding: bool = setting(True, "let vit learn where each patch lies")
    resize: int | None = setting(None, "resize inside the model to this side, in pixels", low=32)
    bn_momentum: float | None = setting(
        None, "momentum of BatchNorm's running statistics", low=0, high=0.9999
    )
    dropout: float = setting(0.0, "dropout before the logits", low=0, high=0.9)
    # Those that only this network has, one of the user's own.
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def folded(cls, values: Mapping[str, Any], where: str = "backbone") -> dict[str, Any]:
        """Settings after the network's name, 'vit:width=0.5', and those that it alone has.

        Args:
          values: of this group, as YAML or flags give them; 'width' is `alpha`.
          where: for messages.

        Raises:
          UsageError: one stands in two places, with other values.
        """
        name, named = parse(str(values.get("name", "")), what=f"{where}.name")
        rest = {key: value for key, value in values.items() if key not in ("name", "settings")}
        found: dict[str, Any] = {}
        for part in (named, dict(values.get("settings", {})), rest):
            part = {_ALIASES.get(key, key): value for key, value in part.items()}
            for key in differing(part, found):
                raise UsageError(
                    f"{where}: {key} is both {found[key]!r} and {part[key]!r}: expected it once."
                )
            found |= part
        fields = cls.__dataclass_fields__
        own = {key: value for key, value in found.items() if key not in fields}
        hints = get_type_hints(cls)
        common = {key: value for key, value in found.items() if key in fields}
        for key in [key for key, value in common.items() if isinstance(value, str)]:
            common[key] = from_text(hints[key], common[key], f"{where}: {key}")
        return {**({"name": name} if name else {}), **common, **({"settings": own} if own else {})}

    def to_plain(self) -> dict[str, Any]:
        """As YAML has it: the network's own settings stand beside the others."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        own = plain.pop("settings")
        return {**plain, **own}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.settings:
            object.__setattr__(self, "settings", _settings_of_backbone(self.name, self.settings))


@dataclass(frozen=True)
class ThreatConfig(Checked):
    """What the adversary may do; becomes a `ThreatModel`."""

    norm: str = setting("linf", "norm of the perturbation", choices=NORMS)
    eps: float = setting(8 / 255, "radius of the perturbation, in pixels of [0, 1]: 8/255", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radius(self.norm, self.eps)


@dataclass(frozen=True)
class StageConfig(Checked):
    """One stage of staged unfreezing."""

    blocks: str = setting("all", "'head', 'all', or how many top blocks train with the head")
    epochs: int = setting(10, "the most epochs of this stage", low=1)
    learning_rate: float = setting(0.05, "learning rate at the start", above=0)
    final_learning_rate: float | None = setting(None, "learning rate at the end", low=0)
    schedule: str = setting("cosine", "how the learning rate falls", choices=SCHEDULES)
    milestones: str = setting(
        "0.5:0.1,0.75:0.01",
        "of 'piecewise': from which part of the stage on which factor of the learning rate holds",
    )
    warmup_epochs: float = setting(0.0, "epochs of linear warm-up", low=0)
    patience: int | None = setting(
        None, "end the stage when the training loss has not improved for this many epochs", low=1
    )
    min_delta: float = setting(0.01, "what counts as an improvement of the loss", low=0)
    clean_weight: float | None = setting(None, "clean_weight of this stage, if another", low=0)
    adv_weight: float | None = setting(None, "adv_weight of this stage, if another", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_milestones(self.milestones)
        if self.warmup_epochs >= self.epochs:
            raise UsageError(
                f"warmup_epochs: expected fewer than the {self.epochs} epochs of the stage, or its "
                f"learning rate is never reached, found {self.warmup_epochs:g}."
            )


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How the network is trained; what a single method needs stands in `method`."""

    method: Choice = setting(
        lambda: Choice(_METHOD),
        "training method, with its settings if need be (trades:beta=6)",
        table=_METHODS,
    )
    stages: tuple[StageConfig, ...] = setting(
        lambda: (StageConfig(),), "BLOCKS:EPOCHS:LEARNING_RATE, comma-separated", flag="stages"
    )
    batch_size: int = setting(64, "images in a batch", low=1)
    optimizer: str = setting("sgd", "optimiser", choices=("sgd", "adam", "adamw"))
    momentum: float = setting(0.9, "momentum of SGD", low=0, high=0.999)
    weight_decay: float = setting(0.0, "weight decay, decoupled, times the learning rate", low=0)
    clip_norm: float | None = setting(None, "clip the gradient's global norm at this", above=0)
    guard_every: int = setting(
        200, "nfgsm: steps between two looks for catastrophic overfitting", low=1
    )
    guard_limit: int = setting(128, "nfgsm: images of 'select' attacked at each look", low=1)
    clean_start: float = setting(
        0.0,
        "part of the training on clean images alone, before eps rises, beside a stage of the head",
        low=0,
        high=0.9,
    )
    eps_ramp: float = setting(
        0.0,
        "part of the training over which eps rises from 0 to its full value; a stage of the head "
        "alone comes before it",
        low=0,
        high=0.9,
    )
    awp_warmup: float = setting(0.0, "epochs before weight perturbation begins", low=0)
    label_smoothing: float = setting(
        0.0, "part of the label's probability spread over all classes", low=0, high=0.9
    )
    ema: float = setting(0.0, "decay of weight averaging, 0 is off", low=0, high=0.99999)
    steps: int = setting(2, "attack steps while training", low=1, flag="train-steps")
    step_size: float | None = setting(
        None,
        "attack step size while training (default: by eps and steps)",
        above=0,
        flag="train-step-size",
    )
    random_start: bool = setting(True, "start the training attack at random in the ball")
    target: str = setting(
        "none",
        "class that the training attack aims at; none: away from the label",
        choices=GOALS,
        flag="train-target",
    )
    batch_norm: str = setting(
        "adversarial", "which batches move BatchNorm's statistics", choices=BATCH_NORM
    )
    precision: str = setting(
        "float32",
        "number format; auto: mixed_bfloat16 where the processor or GPU computes in it, else "
        "float32",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    select_limit: int = setting(512, "images of 'select' attacked after an epoch", low=1)
    select_every: int = setting(
        1,
        "epochs from one measurement on 'select' to the next; the last is always measured",
        low=1,
    )
    select_steps: int = setting(10, "PGD steps of that attack", low=1)
    early_stopping: int | None = setting(
        None, "end training after this many epochs without an improvement on 'select'", low=1
    )
    time_limit: float | None = setting(
        None,
        "minutes of training: schedules run over them, and epochs only share them out among stages",
        above=0,
    )
    keep_from: int | None = setting(
        None, "keep the model of every epoch from this one on, and find the elbow", low=1
    )
    choose: str = setting(
        "best", "which epoch's model to keep: best on 'select', or elbow", choices=("best", "elbow")
    )

    @classmethod
    def folded(cls, values: Mapping[str, Any], where: str = "training") -> dict[str, Any]:
        """Settings of the method that stand beside it, as flags and older runs have them.

        Args:
          values: of this group, as YAML gives them.
          where: for messages.

        Returns:
          The same with 'method' as a mapping that holds them. Those that the method does not
          have are left out: older runs hold the settings of all methods.

        Raises:
          UsageError: one stands in both places, with other values.
        """
        beside = beside_the_method(values)
        if not beside and "method" not in values:
            return dict(values)
        merged = folded_method(values, where)
        known = _settings_of_method(merged.name)
        kept = {
            key: value
            for key, value in merged.settings.items()
            if known is None or key in known or key not in beside
        }
        rest = {key: value for key, value in values.items() if key not in beside}
        return {**rest, "method": Choice(merged.name, kept)}

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "method", completed(self.method))
        epochs = sum(stage.epochs for stage in self.stages)
        if self.keep_from is not None and self.keep_from > epochs:
            raise UsageError(
                f"keep_from: expected one of the {epochs} epochs, found {self.keep_from}."
            )
        if self.choose == "elbow" and self.keep_from is None:
            raise UsageError(
                "choose: the elbow is one of the kept epochs, found none kept: set keep_from "
                "(--keep-from 10)."
            )


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """How robustness is measured."""

    attacks: tuple[str, ...] = setting(
        lambda: ("quick",),
        "attacks, comma-separated, each with settings if need be: pgd:steps=50; quick, or, the "
        "strongest, autoattack",
        flag="attack",
    )
    steps: int = setting(20, "steps of pgd and bim", low=1)
    restarts: int = setting(2, "restarts of pgd", low=1)
    queries: int | None = setting(
        None,
        "model evaluations for an image, of attacks that see outputs alone (default: theirs)",
        low=1,
    )
    eot: int = setting(
        1, "attack and judge a model that draws at random as its mean over N draws", low=1
    )
    limit: int | None = setting(
        None, "evaluate only N of the test images, drawn by the seed", low=1
    )
    batch_size: int = setting(128, "images in a batch", low=1, flag="eval-batch-size")
    figures: bool = setting(
        True, "draw curves, classes, confusion, examples, attack paths and saliency"
    )
    corruptions: bool = setting(
        False,
        "measure mean corruption accuracy as well: on images corrupted here, or, of a folder that "
        "is named, on that copy of CIFAR-10-C, TinyImageNet-C or ImageNet-C",
        or_path="corruption_set",
    )
    #: The folder of a published set; None corrupts the images here.
    corruption_set: str | None = None
    sweep: tuple[float, ...] = setting(
        (), "further eps to run the attacks at, comma-separated, or none: 1/255,2/255", low=0
    )


@dataclass(frozen=True)
class RunConfig(Checked):
    """All settings of a run; `config.yaml` in its folder.

    Examples:
      >>> config = tr.RunConfig()
      >>> config.threat.norm
      'linf'
    """

    seed: int = setting(42, "seed of split, initial weights, batches and attacks", low=0)
    # What was chosen for these images, and why: for people, nothing reads it.
    chosen: tuple[str, ...] = ()
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    threat: ThreatConfig = field(default_factory=ThreatConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for eps in self.evaluation.sweep:
            check_radius(self.threat.norm, eps)


def completed(method: Any) -> Choice:
    """A choice of a method with all of its settings, each as it is given or by default.

    One of a package that is not installed stays as it is: a run that it has trained can be
    evaluated without.

    Raises:
      UsageError: a setting is none of the method's, or its value is out of range.
    """
    choice = Choice.from_plain(method, "method")
    choice = choice if choice.name else Choice(_METHOD, choice.settings)
    plugin = _method(choice.name)
    if plugin is None:
        return choice
    made = configured(plugin, choice.settings, f"Method {choice.name}")
    return Choice(choice.name, values_of(made))


def beside_the_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of the values of the group 'training' those that are settings of a method."""
    names = all_settings(methods()).keys() - TrainingConfig.__dataclass_fields__.keys()
    return {key: value for key, value in values.items() if key in names}


def folded_method(values: Mapping[str, Any], where: str) -> Choice:
    """The method with all of its settings, those that stand beside it as well.

    Raises:
      UsageError: one stands in both places, with other values.
    """
    choice = Choice.from_plain(values.get("method", {}), f"{where}.method")
    beside = beside_the_method(values)
    for key in differing(beside, choice.settings):
        raise UsageError(
            f"{where}: {key} is {choice.settings[key]!r} in the method and {beside[key]!r} beside "
            "it: expected it in one place."
        )
    return Choice(choice.name, {**choice.settings, **beside})


def _settings_of_backbone(name: str, settings: Settings) -> Settings:
    """The settings that a network alone has, checked; as they are where it is not installed.

    Raises:
      UsageError: one is none of the network's, or of the wrong type.
    """
    table: Table[Any] = imported(_BACKBONES, "table")
    try:
        backbone = table[name]
    except UsageError:
        return settings
    known = BackboneConfig.__dataclass_fields__.keys() - {"name", "settings"}
    return Settings(backbone.checked(settings, beside=sorted(known)))


def methods() -> Table[Any]:
    """The table of training methods."""
    table: Table[Any] = imported(_METHODS, "table")
    return table


def _method(name: str) -> Any:
    """The plug-in of a method; None where there is none of this name here."""
    try:
        return methods()[name]
    except UsageError:
        return None


def _settings_of_method(name: str) -> Mapping[str, Any] | None:
    plugin = _method(name) if name else None
    return None if plugin is None else settings_of(plugin)


def check_radius(norm: str, eps: float) -> None:
    """Refuses a radius that only another unit can explain.

    Raises:
      UsageError: a linf radius of 1 or more, whose ball holds every image.
    """
    if norm == "linf" and eps >= 1:
        fits = f"; {eps:g}/255 may be meant: --eps {eps:g}/255" if eps <= 255 else ""
        raise UsageError(
            f"eps: in linf it is in pixel values of [0, 1], where a radius of 1 holds every image, "
            f"found {eps:g}{fits}."
        )


def parse_milestones(text: str) -> tuple[tuple[float, float], ...]:
    """Milestones of a 'piecewise' schedule: '0.5:0.1,0.75:0.01'.

    Returns:
      (part of the stage in [0, 1], factor of the learning rate from there on), in rising
      order of the part.

    Raises:
      UsageError: a milestone is not PART:FACTOR, or they do not rise.
    """
    try:
        pairs = [[float(each) for each in part.split(":")] for part in text.split(",")]
        milestones = tuple((at, factor) for at, factor in pairs)
    except ValueError as error:
        raise UsageError(_milestones_error(text)) from error
    parts = [at for at, _ in milestones]
    inside = all(0 <= at <= 1 and factor >= 0 for at, factor in milestones)
    if not inside or parts != sorted(set(parts)):
        raise UsageError(_milestones_error(text))
    return milestones


def _milestones_error(text: str) -> str:
    return (
        "milestones: expected PART:FACTOR with rising parts of the stage in 0 to 1, such as "
        f"0.5:0.1,0.75:0.01, found {text!r}."
    )


def parse_stages(text: str) -> tuple[StageConfig, ...]:
    """Stages as the command line writes them: 'head:2:0.05,6:4:0.01,all:6:0.005'.

    Raises:
      UsageError: a stage is not BLOCKS:EPOCHS:LEARNING_RATE.
    """
    return tuple(_parse_stage(part) for part in text.split(","))


def _parse_stage(text: str) -> StageConfig:
    parts = text.strip().split(":")
    try:
        blocks, epochs, rate = parts
        return StageConfig(blocks=blocks, epochs=int(epochs), learning_rate=float(rate))
    except ValueError as error:
        raise UsageError(
            f"stages: expected BLOCKS:EPOCHS:LEARNING_RATE such as head:2:0.05, found {text!r}."
        ) from error
