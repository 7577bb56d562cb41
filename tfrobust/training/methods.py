"""Training methods with their settings, as Python users write them: ``Trades(beta=6)``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tfrobust.attacks.gradient import PGD
from tfrobust.training.recipe import Recipe

if TYPE_CHECKING:
    from tfrobust.threat_model import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Method:
    """What every method has.

    Attributes:
      attack: how training images are crafted.
      batch_norm: which batches move BatchNorm's statistics: 'clean', 'adversarial', 'both' or
        'none'.
      label_smoothing: part of the label's probability spread evenly over all classes.
      seed: of random starts.
    """

    place: ClassVar[str] = ""

    attack: PGD = field(default_factory=lambda: PGD(steps=7))
    batch_norm: str = "adversarial"
    label_smoothing: float = 0.0
    seed: int = 42

    def recipe(self, ball: ThreatModel) -> Recipe:
        """What the training step reads, for a ball."""
        own = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        # The loss is to be climbed as far as the steps go.
        own["attack"] = dataclasses.replace(self.attack, early_stop=False)
        return Recipe(ball, **own)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for saving; `from_dict` reads them."""
        return {"method": type(self).__name__, **dataclasses.asdict(self)}


def from_dict(values: dict[str, Any]) -> Method:
    """A method that `Method.as_dict` has written."""
    own = dict(values)
    cls: type[Method] = globals()[own.pop("method")]
    return cls(**{**own, "attack": PGD(**own["attack"])})


@dataclass(frozen=True, kw_only=True)
class Standard(Method):
    """Clean images alone: the baseline."""

    place: ClassVar[str] = "tfrobust.training.standard:Standard"


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Method):
    """Madry et al. (2018), https://arxiv.org/abs/1706.06083: the adversarial batch alone.

    Attributes:
      crafting: 'pgd', or 'nfgsm' for a single step from noise wider than the ball.
      awp: size of adversarial weight perturbation, relative to the weights; 0 is off.
    """

    place: ClassVar[str] = "tfrobust.training.pgd:AdversarialTraining"

    crafting: str = "pgd"
    awp: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Regularisation(Method):
    """NSL's adversarial regularisation: a clean loss and an adversarial one.

    Attributes:
      clean_weight, adv_weight: of the two losses.
      split_batch: each image has one of the two, in the share of their weights.
      crafting: 'pgd', or 'nfgsm'.
    """

    place: ClassVar[str] = "tfrobust.training.regularised:Regularised"

    clean_weight: float = 1.0
    adv_weight: float = 3.0
    split_batch: bool = False
    crafting: str = "pgd"


@dataclass(frozen=True, kw_only=True)
class Trades(Method):
    """Zhang et al. (2019), https://arxiv.org/abs/1901.08573.

    Attributes:
      beta: weight of the divergence between clean and adversarial prediction.
      awp: size of adversarial weight perturbation; 0 is off.
    """

    place: ClassVar[str] = "tfrobust.training.trades:Trades"

    beta: float = 6.0
    awp: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Mart(Method):
    """Wang et al. (2020), https://openreview.net/forum?id=rklOg6EFwS.

    Attributes:
      beta: weight of the second term.
    """

    place: ClassVar[str] = "tfrobust.training.trades:Mart"

    beta: float = 6.0


@dataclass(frozen=True, kw_only=True)
class Fast(Method):
    """N-FGSM, de Jorge et al. (2022), https://arxiv.org/abs/2202.01181: one step from wide noise.

    Attributes:
      noise_reach: radius of the noise, in radii of the ball.
    """

    place: ClassVar[str] = "tfrobust.training.fast:Fast"

    noise_reach: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Mixture(Method):
    """Each batch is clean, or crafted by FGSM, or by PGD.

    Attributes:
      adv_probability: part of the batches that is adversarial.
      fgsm_eps: radius of the FGSM batches.
    """

    place: ClassVar[str] = "tfrobust.training.pgd:Mixture"

    adv_probability: float = 0.5
    fgsm_eps: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Blend(Method):
    """The average of the clean and the adversarial image.

    Attributes:
      blend: share of the adversarial image, in (0, 1].
    """

    place: ClassVar[str] = "tfrobust.training.pgd:Blend"

    blend: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Noise(Method):
    """Gaussian augmentation, Cohen et al. (2019), https://arxiv.org/abs/1902.02918.

    Attributes:
      noise_std: standard deviation, in pixel values of [0, 1].
    """

    place: ClassVar[str] = "tfrobust.training.pgd:Noise"

    noise_std: float = 0.25
