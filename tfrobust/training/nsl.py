"""Neural Structured Learning's adversarial regularisation, in this project's terms.

The only file that uses NSL's terms.
"""

from __future__ import annotations

from typing import Any

from tfrobust.runtime import keras, nsl, tf
from tfrobust.training.recipe import Recipe
from tfrobust.training.regularised import Regularised
from tfrobust.training.step import RobustStep
from tfrobust.typing import Tensor

_GRAD_NORM = {"linf": "infinity", "l2": "l2", "l1": "l1"}


class NSL(Regularised, nsl.keras.AdversarialRegularization):
    """`AdversarialRegularization`: loss = clean_weight * clean + adv_weight * adversarial.

    NSL's own crafting runs in training mode, which updates BatchNorm's statistics with every
    attack step and targets a network that inference never uses; this one runs in inference mode,
    with the same ball and the same loop as the evaluation, or, with the crafting 'nfgsm', in a
    single step from wide noise. The loss, the dict batches, `save` and `perturb_on_batch` are
    NSL's, with all of its parameters set from the threat model.

    Args:
      base_model: image [0, 1] -> logits; its input is named 'image'.
      recipe: threat model, attack and weights.
    """

    def __init__(self, base_model: Any, recipe: Recipe) -> None:
        # Skips the step's constructor: NSL's wrapper takes the base model itself.
        super(RobustStep, self).__init__(
            base_model, label_keys=("label",), adv_config=adv_config(recipe)
        )
        self.prepare(recipe)

    def compile(self, optimizer: Any, **kwargs: Any) -> None:
        """Compiles with cross-entropy on logits, the only loss of this project."""
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if self.recipe.label_smoothing:
            loss = self._smoothed
        super().compile(optimizer, loss=loss, **kwargs)

    def labeled(self, y: Tensor, logits: Tensor) -> Tensor:
        """NSL's labeled loss."""
        return self._compute_total_loss([y], [logits])

    def _smoothed(self, y: Tensor, logits: Tensor) -> Tensor:
        # Keras passes the labels as a column.
        return self.cross_entropy(logits, tf.cast(tf.reshape(y, [-1]), tf.int32))


def adv_config(recipe: Recipe) -> Any:
    """NSL's configuration, with no value left at its default.

    The defaults are an L2 step of 0.001 without projection or clipping, which has no effect.
    """
    threat, attack = recipe.threat_model, recipe.attack
    return nsl.configs.make_adv_reg_config(
        multiplier=recipe.adv_weight,
        adv_step_size=attack.resolved_step_size(threat.eps, threat.norm),
        adv_grad_norm=_GRAD_NORM[threat.norm],
        pgd_iterations=attack.steps,
        pgd_epsilon=threat.eps,
        random_init=attack.random_start,
        # NSL silently ignores a scalar: bounds go by input name.
        clip_value_min={"image": threat.bounds[0]},
        clip_value_max={"image": threat.bounds[1]},
    )
