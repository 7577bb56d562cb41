"""Adversarial regularisation: a clean loss and an adversarial one, weighted.

Feng et al. (2019), https://arxiv.org/abs/1902.08226, and Goodfellow et al. (2015),
https://arxiv.org/abs/1412.6572: the loss that Neural Structured Learning implements.
"""

from __future__ import annotations

from typing import Any

from tfrobust.errors import UsageError
from tfrobust.models.heads import raw
from tfrobust.runtime import tf
from tfrobust.training.recipe import Recipe
from tfrobust.training.step import RobustStep
from tfrobust.typing import Tensor


class Regularised(RobustStep):
    """loss = clean_weight * clean + adv_weight * adversarial, for a model of either Keras.

    The loss of NSL's `AdversarialRegularization`, which supports only Keras 2; the method 'nsl'
    uses NSL's own.
    """

    def _require(self, recipe: Recipe) -> None:
        super()._require(recipe)
        attack = recipe.attack
        fits = (
            attack.steps == 1 and not attack.random_start and not attack.targeted
            and attack.loss == "cross_entropy" and recipe.crafting == "pgd"
            and not recipe.split_batch and recipe.clean_weight > 0 and recipe.adv_weight > 0
        )  # fmt: skip
        if recipe.shared_gradient and not fits:
            raise UsageError(
                "shared_gradient: expected one step of cross-entropy without random start or "
                "target, and both losses on the whole batch: choose attack=FGSM(), or turn "
                "shared_gradient off."
            )

    def _robust_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        if not self.recipe.shared_gradient:
            return super()._robust_step(x, y)
        loss, terms, grads = self._share(x, y)
        return self._updated(loss, terms, grads, y)

    def _share(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Any], list[Tensor]]:
        """As `_differentiate`, with x_adv from the clean pass's own gradient.

        One backward pass gives the gradients by the weights and by x, and is finished before the
        adversarial pass starts: its memory is free again. The weights are the same in both, so the
        sum of the two gradients is the gradient of the sum of the losses.
        """
        variables = [raw(variable) for variable in self.base_model.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            clean = self.forward(x, "clean")
            clean_loss = self.recipe.clean_weight * self.labeled(y, clean)
            scaled = self._scaled(clean_loss)
        by_x, *first = tape.gradient(scaled, [x, *variables])
        x_adv = self.recipe.attack.first_step(x, y, by_x, self.ball)
        # Otherwise the passes would overlap, and keep the activations of both in memory.
        with tf.control_dependencies([one for one in first if one is not None]):
            x_adv = tf.identity(x_adv)

        def adversarial() -> dict[str, Any]:
            adv = self.forward(x_adv, "adversarial")
            return {"loss": self.recipe.adv_weight * self.labeled(y, adv), "adv": adv}

        adv_loss, terms, second = self._differentiate(adversarial)
        grads = [_sum(*pair) for pair in zip(first, second, strict=True)]
        return clean_loss + adv_loss, {"clean": clean, **terms}, grads

    def labeled(self, y: Tensor, logits: Tensor) -> Tensor:
        """The loss of one kind of images, a scalar."""
        return self.cross_entropy(logits, y)

    def craft(self, x: Tensor, y: Tensor) -> Tensor | None:
        """As in every method; None if the adversarial loss has no weight.

        With `split_batch` the first images of the batch stay clean, in the clean weight's share of
        both weights.
        """
        if not self.crafts:
            return None
        if not self.splits:
            return super().craft(x, y)
        count = self._clean_count(x)
        return tf.concat([x[:count], super().craft(x[count:], y[count:])], axis=0)

    @property
    def splits(self) -> bool:
        """Whether each image of the batch contributes to one of the two losses instead of both."""
        return self.recipe.split_batch and self.recipe.clean_weight > 0 and self.crafts

    def _clean_count(self, x: Tensor) -> Tensor:
        """The number of clean images in a batch: their share, at least one of each kind of 2."""
        share = self.recipe.clean_weight / (self.recipe.clean_weight + self.recipe.adv_weight)
        size = tf.shape(x)[0]
        count = tf.cast(tf.round(share * tf.cast(size, tf.float32)), tf.int32)
        return tf.clip_by_value(count, tf.minimum(1, size - 1), tf.maximum(size - 1, 0))

    @property
    def trained(self) -> int:  # type: ignore[override]
        """One pass for each loss that has a weight; one for both if they share the batch."""
        if self.splits:
            return 1
        return int(self.recipe.clean_weight > 0) + int(self.recipe.adv_weight > 0)

    @property
    def passes(self) -> int:
        """No crafting pass if the attack uses the clean pass's gradient."""
        return self.trained if self.recipe.shared_gradient else super().passes

    @property
    def crafts(self) -> bool:
        """False if the adversarial loss has no weight."""
        return bool(self.recipe.adv_weight)

    def losses_of(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> dict[str, Tensor]:
        """The loss on x plus the scaled loss on x_adv.

        Passes with weight 0 are skipped.
        """
        if self.splits:
            return self._losses_of_parts(x_adv, y)
        terms: dict[str, Tensor] = {"loss": tf.constant(0.0)}
        alone = not (self.recipe.clean_weight and self.recipe.adv_weight)
        weighted = (
            ("clean", "clean", x, self.recipe.clean_weight),
            ("adv", "adversarial", x_adv, self.recipe.adv_weight),
        )
        for key, kind, images, weight in weighted:
            if weight:
                terms[key] = self.forward(images, kind, alone=alone)
                terms["loss"] += weight * self.labeled(y, terms[key])
        return terms

    def _losses_of_parts(self, mixed: Tensor, y: Tensor) -> dict[str, Any]:
        """The same weighted sum in one pass, each loss estimated on its part of the batch.

        Batches are shuffled, so each part is a random sample, and the estimate is unbiased; the
        whole batch updates BatchNorm's statistics.
        """
        logits, count = self.forward(mixed, "adversarial", alone=True), self._clean_count(mixed)
        parts = {"clean": slice(None, count), "adv": slice(count, None)}
        weights = {"clean": self.recipe.clean_weight, "adv": self.recipe.adv_weight}
        loss = sum(
            weights[key] * self.labeled(y[part], logits[part]) for key, part in parts.items()
        )
        first = tf.cast(tf.range(tf.shape(y)[0]) < count, tf.float32)
        counted = {"clean": first, "adv": 1.0 - first}
        return {"loss": loss, "clean": logits, "adv": logits, "counted": counted}

    def loss_of_guessing(self, entropy: float) -> float:
        """The weighted sum of both losses."""
        return (self.recipe.clean_weight + self.recipe.adv_weight) * entropy


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The sum of two gradients, either of which may be None."""
    if one is None or other is None:
        return other if one is None else one
    return tf.convert_to_tensor(one) + tf.convert_to_tensor(other)
