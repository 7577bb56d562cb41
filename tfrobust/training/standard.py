"""Training on clean images: the baseline, with the same step as the robust methods."""

from __future__ import annotations

from tfrobust.training.step import RobustStep
from tfrobust.typing import Tensor


class Standard(RobustStep):
    """Cross-entropy on the clean batch; nothing is crafted.

    The epoch with the best clean accuracy is kept: PGD accuracy is near 0 throughout, and would
    pick an arbitrary epoch in which the network has hardly learnt anything.
    """

    goal = "select_clean"
    crafts = False

    def craft(self, x: Tensor, y: Tensor) -> None:
        """Nothing."""
        return None

    def losses_of(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> dict[str, Tensor]:
        """Cross-entropy on x; its batches update BatchNorm's statistics under any policy."""
        logits = self.forward(x, "clean", alone=True)
        return {"loss": self.cross_entropy(logits, y), "clean": logits}
