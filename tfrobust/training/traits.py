"""What each training method can do, for those who decide before TensorFlow is imported."""

from __future__ import annotations

from dataclasses import dataclass

from tfrobust.config import NORMS


@dataclass(frozen=True)
class Traits:
    """Capabilities of a method.

    Attributes:
      norms: the norms that it trains against.
      adversarial: whether it trains on adversarial images of the ball.
      weighs: whether it weighs a clean loss against an adversarial one.
      crafting: whether `crafting` can be chosen.
    """

    norms: tuple[str, ...] = NORMS
    adversarial: bool = True
    weighs: bool = False
    crafting: bool = False


def traits_of(method: str) -> Traits:
    """What a method can do; one of a user's own says it in its attribute `traits`.

    Raises:
      UsageError: there is no such method.
    """
    from tfrobust.training import METHODS

    if method in TRAITS:
        return TRAITS[method]
    found: Traits = getattr(METHODS[method], "traits", Traits())
    return found


#: By the names of `METHODS`.
TRAITS = {
    "nsl": Traits(norms=("linf", "l2", "l1"), weighs=True, crafting=True),
    "standard": Traits(adversarial=False),
    "pgd": Traits(crafting=True),
    "trades": Traits(),
    "mart": Traits(crafting=True),
    "fast": Traits(),
    "mixture": Traits(crafting=True),
    "blend": Traits(crafting=True),
    "noise": Traits(adversarial=False),
}
