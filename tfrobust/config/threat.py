"""Settings of the threat model."""

from __future__ import annotations

from dataclasses import dataclass

from tfrobust.errors import UsageError
from tfrobust.settings import Checked, setting

NORMS = ("linf", "l2", "l1", "l0")


@dataclass(frozen=True)
class ThreatConfig(Checked):
    """What the adversary may do; becomes a `ThreatModel`."""

    norm: str = setting("linf", "norm of the perturbation", choices=NORMS)
    eps: float = setting(8 / 255, "radius of the perturbation, in pixels of [0, 1]: 8/255", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radius(self.norm, self.eps)


def check_radius(norm: str, eps: float) -> None:
    """Refuses a radius that only another unit can explain.

    Raises:
      UsageError: a linf radius of 1 or more, whose ball contains every image.
    """
    if norm == "linf" and eps >= 1:
        fits = f"; {eps:g}/255 may be meant: --eps {eps:g}/255" if eps <= 255 else ""
        raise UsageError(
            "eps: in linf it is in pixel values of [0, 1], where a radius of 1 contains every "
            f"image, found {eps:g}{fits}."
        )
