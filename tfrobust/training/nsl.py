"""Neural Structured Learning's adversarial regularisation, in our words.

The only file that speaks NSL's.
"""

from __future__ import annotations

from typing import Any

from tfrobust.runtime import keras, nsl, tf
from tfrobust.training.recipe import Recipe
from tfrobust.training.step import RobustStep

Tensor = Any
_GRAD_NORM = {"linf": "infinity", "l2": "l2", "l1": "l1"}


class NSL(RobustStep, nsl.keras.AdversarialRegularization):
    """`AdversarialRegularization`: loss = clean_weight * clean + adv_weight * adversarial.

    NSL's own crafting runs in training mode, which moves BatchNorm's statistics with
    every attack step and aims at a network that inference never sees; ours runs in
    inference mode, through the same ball and the same loop as the evaluation, or, with the
    crafting 'nfgsm', in a single step from wide noise. The loss, the dict batches, `save` and
    `perturb_on_batch` are NSL's, with every one of its parameters set from the threat model.

    Args:
      base_model: image [0, 1] -> logits; its input is named 'image'.
      recipe: threat model, attack and weights.
    """

    def __init__(self, base_model: Any, recipe: Recipe) -> None:
        super().__init__(base_model, label_keys=("label",), adv_config=adv_config(recipe))
        self.prepare(recipe)

    def compile(self, optimizer: Any, **kwargs: Any) -> None:
        """Compiles with cross-entropy on logits, the only loss of this project."""
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if self.recipe.label_smoothing:
            loss = self._smoothed
        super().compile(optimizer, loss=loss, **kwargs)

    def craft(self, x: Tensor, y: Tensor) -> Tensor | None:
        """As every method does; nothing where the adversarial loss has no weight.

        With `split_batch` the first images of the batch stay clean: their share is the clean
        weight's of both.
        """
        if not self.crafts:
            return None
        if not self.splits:
            return super().craft(x, y)
        count = self._clean_count(x)
        return tf.concat([x[:count], super().craft(x[count:], y[count:])], axis=0)

    @property
    def splits(self) -> bool:
        """Whether an image of the batch has one of the two losses instead of both."""
        return self.recipe.split_batch and self.recipe.clean_weight > 0 and self.crafts

    def _clean_count(self, x: Tensor) -> Tensor:
        """How many of a batch are clean: their share, and one of either kind where there are 2."""
        share = self.recipe.clean_weight / (self.recipe.clean_weight + self.recipe.adv_weight)
        size = tf.shape(x)[0]
        count = tf.cast(tf.round(share * tf.cast(size, tf.float32)), tf.int32)
        return tf.clip_by_value(count, tf.minimum(1, size - 1), tf.maximum(size - 1, 0))

    @property
    def trained(self) -> int:  # type: ignore[override]
        """A pass for each loss that has a weight; one for both where they share the batch."""
        if self.splits:
            return 1
        return int(self.recipe.clean_weight > 0) + int(self.recipe.adv_weight > 0)

    @property
    def crafts(self) -> bool:
        """Not where the adversarial loss has no weight."""
        return bool(self.recipe.adv_weight)

    def losses_of(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> dict[str, Tensor]:
        """NSL's labeled loss on x plus its scaled adversarial loss on x_adv.

        A pass whose weight is 0 is left out.
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
                terms["loss"] += weight * self._compute_total_loss([y], [terms[key]])
        return terms

    def _losses_of_parts(self, mixed: Tensor, y: Tensor) -> dict[str, Any]:
        """The same weighted sum, each loss estimated on its part of the batch, in one pass.

        Batches are shuffled, so each part is a random one, and the estimate is unbiased; the
        batch as a whole moves BatchNorm's statistics.
        """
        logits, count = self.forward(mixed, "adversarial", alone=True), self._clean_count(mixed)
        parts = {"clean": slice(None, count), "adv": slice(count, None)}
        weights = {"clean": self.recipe.clean_weight, "adv": self.recipe.adv_weight}
        loss = sum(
            weights[key] * self._compute_total_loss([y[part]], [logits[part]])
            for key, part in parts.items()
        )
        first = tf.cast(tf.range(tf.shape(y)[0]) < count, tf.float32)
        counted = {"clean": first, "adv": 1.0 - first}
        return {"loss": loss, "clean": logits, "adv": logits, "counted": counted}

    def loss_of_guessing(self, entropy: float) -> float:
        """Of both losses, by their weights."""
        return (self.recipe.clean_weight + self.recipe.adv_weight) * entropy

    def _smoothed(self, y: Tensor, logits: Tensor) -> Tensor:
        # Keras hands the labels over as a column.
        return self.cross_entropy(logits, tf.cast(tf.reshape(y, [-1]), tf.int32))


def adv_config(recipe: Recipe) -> Any:
    """NSL's configuration, with nothing left to its defaults.

    Those are an L2 step of 0.001 without projection or clipping, which train nothing.
    """
    threat, attack = recipe.threat_model, recipe.attack
    return nsl.configs.make_adv_reg_config(
        multiplier=recipe.adv_weight,
        adv_step_size=attack.resolved_step_size(threat.eps, threat.norm),
        adv_grad_norm=_GRAD_NORM[threat.norm],
        pgd_iterations=attack.steps,
        pgd_epsilon=threat.eps,
        random_init=attack.random_start,
        # A scalar is ignored in silence: bounds go by input name.
        clip_value_min={"image": threat.bounds[0]},
        clip_value_max={"image": threat.bounds[1]},
    )
