"""Settings of training, and of its method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfrobust.config.stages import StageConfig
from tfrobust.errors import UsageError
from tfrobust.plugins import Choice, all_settings, configured, differing, settings_of, values_of
from tfrobust.settings import Checked, setting
from tfrobust.tables import Table, imported
from tfrobust.typing import Method

BATCH_NORM = ("clean", "adversarial", "both", "none")
CRAFTING = ("pgd", "nfgsm")
GOALS = ("none", "least_likely", "second", "random")
# The room of training is below this one, so its table is imported by name, like a plug-in.
_METHODS = "tfrobust.training:METHODS"
_METHOD = "nsl"


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How the network is trained; `method` has the settings of that method alone."""

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
        """Values with the method's settings moved into 'method'.

        Flags and older runs have them beside it.

        Args:
          values: of this group, as YAML gives them.
          where: for messages.

        Returns:
          The same with 'method' as a `Choice`. Settings that the method does not have are left
          out: older runs contain the settings of all methods.

        Raises:
          UsageError: one is given in both places, with different values.
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


def completed(method: Choice | Mapping[str, Any] | str) -> Choice:
    """A choice of a method with all of its settings, given or by default.

    A method of a package that is not installed is returned as it is, so that a run that it has
    trained can be evaluated without the package.

    Raises:
      UsageError: the method has no such setting, or a value is out of range.
    """
    choice = Choice.from_plain(method, "method")
    choice = choice if choice.name else Choice(_METHOD, choice.settings)
    plugin = _method(choice.name)
    if plugin is None:
        return choice
    made = configured(plugin, choice.settings, f"Method {choice.name}")
    return Choice(choice.name, values_of(made))


def beside_the_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values of the group 'training' that are settings of a method."""
    names = all_settings(methods()).keys() - TrainingConfig.__dataclass_fields__.keys()
    return {key: value for key, value in values.items() if key in names}


def folded_method(values: Mapping[str, Any], where: str) -> Choice:
    """The method with all of its settings, also those that are given beside it.

    Raises:
      UsageError: one is given in both places, with different values.
    """
    choice = Choice.from_plain(values.get("method", {}), f"{where}.method")
    beside = beside_the_method(values)
    for key in differing(beside, choice.settings):
        raise UsageError(
            f"{where}: {key} is {choice.settings[key]!r} in the method and {beside[key]!r} beside "
            "it: expected it once."
        )
    return Choice(choice.name, {**choice.settings, **beside})


def methods() -> Table[type[Method]]:
    """The table of training methods."""
    table: Table[type[Method]] = imported(_METHODS, "table")
    return table


def _method(name: str) -> type[Method] | None:
    """The plug-in of a method; None if it is not installed."""
    try:
        return methods()[name]
    except UsageError:
        return None


def _settings_of_method(name: str) -> Mapping[str, Any] | None:
    plugin = _method(name) if name else None
    return None if plugin is None else settings_of(plugin)
