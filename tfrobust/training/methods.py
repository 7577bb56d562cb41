"""Training methods with their settings, as Python users write them: ``Trades(beta=6)``.

A method is a frozen dataclass. It owns its settings, with their ranges and command-line help;
it declares its capabilities; and it names its step, the Keras model that trains (`place`).
Nothing here needs TensorFlow: a command checks its settings before reading data.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tfrobust.config import BATCH_NORM, CRAFTING, NORMS
from tfrobust.errors import UsageError
from tfrobust.settings import Checked, setting
from tfrobust.tables import imported
from tfrobust.training.recipe import Recipe

if TYPE_CHECKING:
    from tfrobust.attacks.gradient import PGD
    from tfrobust.threat_model import ThreatModel
else:
    PGD = Any


def _shared(default: Any, **checks: Any) -> Any:
    """A setting that every method has and that the run's configuration sets for all of them."""
    return setting(default, "", shared=True, **checks)


@dataclass(frozen=True, kw_only=True)
class Method(Checked):
    """The base of all methods.

    Attributes:
      attack: how training images are crafted; None is PGD of 7 steps.
      batch_norm: which batches move BatchNorm's statistics: 'clean', 'adversarial', 'both' or
        'none'.
      label_smoothing: share of the label's probability spread evenly over all classes.
      seed: of random starts.
      place: where its step is defined, ``package.module:name``.
      norms: the norms that it trains against.
      needs_attack: whether it trains on adversarial images of the ball.
      weighs_losses: whether it weighs a clean loss against an adversarial one.
    """

    place: ClassVar[str] = ""
    norms: ClassVar[tuple[str, ...]] = NORMS
    needs_attack: ClassVar[bool] = True
    weighs_losses: ClassVar[bool] = False

    attack: PGD | None = None
    batch_norm: str = _shared("adversarial", choices=BATCH_NORM)
    label_smoothing: float = _shared(0.0, low=0, high=0.9)
    seed: int = _shared(42)

    @property
    def single_step(self) -> bool:
        """Whether it crafts in one step from noise wider than the ball."""
        return False

    @classmethod
    def step(cls) -> Any:
        """The Keras model class that implements it: (base model, recipe) -> model."""
        return imported(cls.place, "training method")

    @classmethod
    def check_norm(cls, norm: str, name: str = "") -> None:
        """Rejects a norm that the method does not train against.

        Raises:
          UsageError: the norm is not in `norms`.
        """
        if norm not in cls.norms:
            raise UsageError(
                f"norm: the method {name or cls.__name__} trains against {', '.join(cls.norms)}, "
                f"found {norm!r}: choose one of these, or another method, such as --method pgd."
            )

    def recipe(self, ball: ThreatModel) -> Recipe:
        """The settings of the training step, for a ball.

        Raises:
          UsageError: the method does not train against the ball's norm.
        """
        from tfrobust.attacks.gradient import PGD

        self.check_norm(ball.norm)
        known = {item.name for item in dataclasses.fields(Recipe)}
        own = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        own = {name: value for name, value in own.items() if name in known}
        # Training uses the full number of steps to maximise the loss.
        attack = self.attack or PGD(steps=7)
        own["attack"] = (
            dataclasses.replace(attack, early_stop=False) if attack.early_stop else attack
        )
        return Recipe(ball, method=self, **own)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for saving; `from_dict` reads them."""
        own = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        attack = None if self.attack is None else attack_as_dict(self.attack)
        return {"method": type(self).__name__, **own, "attack": attack}


def from_dict(values: dict[str, Any]) -> Method:
    """Restores a method from the output of `Method.as_dict`.

    Raises:
      UsageError: its class is not available.
    """
    own = dict(values)
    name = own.pop("method")
    found = {cls.__name__: cls for cls in known_methods()}
    if name not in found:
        raise UsageError(f"Training method {name!r}: expected one of {', '.join(found)}.")
    attack = own.pop("attack")
    return found[name](**own, attack=None if attack is None else attack_from_dict(attack))


def known_methods() -> list[type[Method]]:
    """All imported method classes, including users' own."""
    return list(_below(Method))


def _below(cls: type[Method]) -> Iterator[type[Method]]:
    for one in cls.__subclasses__():
        if one.place:
            yield one
        yield from _below(one)


@functools.cache
def method_of(found: Any) -> type[Method]:
    """A method; for a plain step, a method with the settings of the step it derives from.

    Args:
      found: a `Method` class or a step class.

    Raises:
      UsageError: it is neither.
    """
    if isinstance(found, type) and issubclass(found, Method):
        return found
    if not isinstance(found, type) or not hasattr(found, "train_step"):
        raise UsageError(f"Expected a training method, found {found!r}.")
    places = [f"{one.__module__}:{one.__qualname__}" for one in found.__mro__]
    owners = {cls.place: cls for cls in known_methods()}
    base = next((owners[place] for place in places if place in owners), Method)
    return type(found.__name__, (base,), {"place": places[0], "__module__": found.__module__})


def attack_as_dict(attack: PGD) -> dict[str, Any]:
    """Plain values of a PGD attack or a subclass; `attack_from_dict` reads them."""
    settings = [item.name for item in dataclasses.fields(attack) if item.init]
    return {"attack": type(attack).__name__, **{name: getattr(attack, name) for name in settings}}


def attack_from_dict(values: dict[str, Any]) -> PGD:
    """Restores an attack from the output of `attack_as_dict`."""
    from tfrobust.attacks.gradient import BIM, FGSM, PGD

    own = dict(values)
    cls: type[PGD] = {"BIM": BIM, "FGSM": FGSM}.get(own.pop("attack", "PGD"), PGD)
    return cls(**own)


@dataclass(frozen=True, kw_only=True)
class Standard(Method):
    """Clean images only: the baseline.

    Examples:
      >>> tr.robust(model, tr.Standard(), ball).settings
      Standard(...)
    """

    place: ClassVar[str] = "tfrobust.training.standard:Standard"
    needs_attack: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class Crafted(Method):
    """The base of methods whose attack maximises cross-entropy, in many steps or in one.

    Attributes:
      crafting: 'pgd', or 'nfgsm' for a single step from noise wider than the ball.
      noise_reach: radius of that noise, in radii of the ball.
    """

    crafting: str = setting(
        "pgd", "how images are crafted: pgd, or nfgsm, one step from noise wider than the "
        "ball, as always in fast", choices=CRAFTING,
    )  # fmt: skip
    noise_reach: float = setting(
        2.0, "nfgsm: the noise before its step reaches this many times eps", low=0
    )

    @property
    def single_step(self) -> bool:
        """With the crafting 'nfgsm'."""
        return self.crafting == "nfgsm"


@dataclass(frozen=True, kw_only=True)
class _Perturbing(Method):
    """The base of methods that support weight perturbation.

    Attributes:
      awp: size of adversarial weight perturbation, relative to the weights; 0 is off.
    """

    awp: float = setting(
        0.0, "size of adversarial weight perturbation, 0 is off", low=0, high=1
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(_Perturbing, Crafted):
    """Madry et al. (2018), https://arxiv.org/abs/1706.06083: the adversarial batch only.

    Examples:
      >>> method = tr.AdversarialTraining(attack=tr.PGD(steps=2))
      >>> tr.robust(model, method, ball).settings.attack.steps
      2
    """

    place: ClassVar[str] = "tfrobust.training.pgd:AdversarialTraining"


@dataclass(frozen=True, kw_only=True)
class Regularisation(Crafted):
    """NSL's adversarial regularisation: a clean loss and an adversarial one.

    The weighted sum of Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572.

    Attributes:
      clean_weight, adv_weight: of the two losses.
      split_batch: each image contributes to one of the two losses, in proportion to the weights.
      shared_gradient: take the attack's gradient from the clean training pass, as stock NSL does,
        which saves one pass in three: for ``attack=FGSM()`` or one step of PGD without random
        start. Images are then crafted in training mode, against the network with batch
        statistics and dropout, which inference never uses: leave it off if the network has
        BatchNorm and robustness matters.

    Examples:
      >>> tr.robust(model, tr.Regularisation(adv_weight=2.0), ball).settings.adv_weight
      2.0
    """

    place: ClassVar[str] = "tfrobust.training.regularised:Regularised"
    weighs_losses: ClassVar[bool] = True

    clean_weight: float = setting(1.0, "weight of the loss on clean images", low=0)
    adv_weight: float = setting(3.0, "weight of the loss on adversarial images", low=0)
    split_batch: bool = setting(
        False,
        "use each image of a batch for one of the two losses, in proportion to their weights, "
        "instead of for both: fewer passes",
    )
    shared_gradient: bool = setting(
        False,
        "take the gradient of a single step without random start from the clean training pass, "
        "in training mode",
    )


@dataclass(frozen=True, kw_only=True)
class NSLRegularisation(Regularisation):
    """The same through Neural Structured Learning's `AdversarialRegularization`, for tf_keras."""

    place: ClassVar[str] = "tfrobust.training.nsl:NSL"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    adv_weight: float = setting(1.0, "weight of the loss on adversarial images", low=0)


@dataclass(frozen=True, kw_only=True)
class Trades(_Perturbing):
    """Zhang et al. (2019), https://arxiv.org/abs/1901.08573.

    Attributes:
      beta: weight of the divergence between clean and adversarial prediction.

    Examples:
      >>> tr.robust(model, tr.Trades(beta=3.0), ball).settings.beta
      3.0
    """

    place: ClassVar[str] = "tfrobust.training.trades:Trades"

    beta: float = setting(6.0, "weight of the robustness term", low=0)


@dataclass(frozen=True, kw_only=True)
class Mart(Crafted):
    """Wang et al. (2020), https://openreview.net/forum?id=rklOg6EFwS.

    Attributes:
      beta: weight of the second term.

    Examples:
      >>> tr.robust(model, tr.Mart(beta=5.0), ball).settings.beta
      5.0
    """

    place: ClassVar[str] = "tfrobust.training.trades:Mart"

    beta: float = setting(6.0, "weight of the robustness term", low=0)


@dataclass(frozen=True, kw_only=True)
class Fast(Method):
    """N-FGSM, de Jorge et al. (2022), https://arxiv.org/abs/2202.01181: one step from wide noise.

    Attributes:
      noise_reach: radius of the noise, in radii of the ball.

    Examples:
      >>> tr.robust(model, tr.Fast(), ball).single_step
      True
    """

    place: ClassVar[str] = "tfrobust.training.fast:Fast"

    noise_reach: float = setting(2.0, "the noise reaches this many times eps", low=0)

    @property
    def single_step(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, kw_only=True)
class Mixture(Crafted):
    """Each batch is clean, or crafted by FGSM, or by PGD.

    Attributes:
      adv_probability: share of the batches that are adversarial.
      fgsm_eps: radius of the FGSM batches, in the units of eps.

    Examples:
      >>> tr.robust(model, tr.Mixture(), ball).settings
      Mixture(...)
    """

    place: ClassVar[str] = "tfrobust.training.pgd:Mixture"

    adv_probability: float = setting(
        0.5, "share of the batches that are adversarial", low=0, high=1
    )  # fmt: skip
    fgsm_eps: float = setting(0.01, "radius of the FGSM batches, in the units of eps", above=0)


@dataclass(frozen=True, kw_only=True)
class Blend(Crafted):
    """Trains on a weighted average of the clean and the adversarial image.

    Attributes:
      blend: weight of the adversarial image, in (0, 1].

    Examples:
      >>> tr.robust(model, tr.Blend(), ball).settings
      Blend(...)
    """

    place: ClassVar[str] = "tfrobust.training.pgd:Blend"

    blend: float = setting(0.5, "weight of the adversarial image", above=0, high=1)


@dataclass(frozen=True, kw_only=True)
class Noise(Method):
    """Gaussian augmentation, Cohen et al. (2019), https://arxiv.org/abs/1902.02918.

    Attributes:
      noise_std: standard deviation, in pixel values of [0, 1].

    Examples:
      >>> tr.robust(model, tr.Noise(noise_std=0.25), ball).settings.noise_std
      0.25
    """

    place: ClassVar[str] = "tfrobust.training.pgd:Noise"
    needs_attack: ClassVar[bool] = False

    noise_std: float = setting(0.25, "standard deviation of the Gaussian noise", above=0)
