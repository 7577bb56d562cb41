"""The one training step that all methods share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.losses import cross_entropy
from tfrobust.backbones.folding import fold
from tfrobust.config import BATCH_NORM, TrainingConfig
from tfrobust.errors import UsageError
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training.batch_norm import Statistics, batch_norm_layers

Tensor = Any


@dataclass(frozen=True)
class Recipe:
    """What a method needs to know beside the model: the part of the config it reads.

    Attributes:
      threat_model: the ball that training examples are crafted in.
      attack: how they are crafted.
      clean_weight: weight of the loss on clean images.
      adv_weight: weight of the loss on adversarial images (NSL: multiplier).
      batch_norm: which batches move BatchNorm's statistics: 'clean', 'adversarial',
        'both', or 'none' (BatchNorm layers are frozen as they are). Where only one kind
        has a weight, that kind moves them, or they would stay at their initial values.
      seed: of the random starts.
    """

    threat_model: ThreatModel
    attack: PGD
    clean_weight: float = 1.0
    adv_weight: float = 1.0
    batch_norm: str = "adversarial"
    seed: int = 42

    def __post_init__(self) -> None:
        if self.batch_norm not in BATCH_NORM:
            raise UsageError(
                f"batch_norm: expected one of {', '.join(BATCH_NORM)}, found {self.batch_norm!r}."
            )
        if self.clean_weight + self.adv_weight <= 0:
            raise UsageError("clean_weight and adv_weight are both 0: at least one must be more.")

    @classmethod
    def from_config(cls, config: TrainingConfig, threat_model: ThreatModel, seed: int) -> Recipe:
        """The recipe that a run's configuration names."""
        attack = PGD(
            steps=config.steps,
            step_size=config.step_size,
            random_start=config.random_start,
            early_stop=False,
        )
        return cls(
            threat_model, attack, config.clean_weight, config.adv_weight, config.batch_norm, seed
        )


class RobustStep:
    """Mixed into a `keras.Model`: crafts, computes the method's loss, updates, measures.

    Guarantees, for every method:
      - x_adv lies in the ball and in [0, 1], and no gradient flows through it;
      - the attack's passes run in inference mode and never move BatchNorm's statistics;
      - of the training passes, those named by `batch_norm` move them;
      - the same seed and step give the same x_adv, whatever ran before.
    """

    base_model: Any
    recipe: Recipe
    optimizer: Any
    # The column of the history that picks the epoch to keep.
    goal = "select_pgd"
    # Every method's own: (x, x_adv, y) -> {'loss': scalar, and the logits 'clean' and 'adv'
    # where it computes them}.
    losses_of: Callable[[Tensor, Tensor | None, Tensor], dict[str, Tensor]]

    def prepare(self, recipe: Recipe) -> None:
        """Sets up recipe and metrics; called at the end of a method's constructor."""
        self.recipe = recipe
        names = ("loss", "clean_accuracy", "adv_accuracy")
        self._means = {name: keras.metrics.Mean(name=name) for name in names}

    def compile(self, optimizer: Any, **kwargs: Any) -> None:
        """Settles which BatchNorm statistics move; to be called after any (un)freezing."""
        if self.recipe.batch_norm == "none":
            for layer in batch_norm_layers(self.base_model):
                layer.trainable = False
        self._statistics = Statistics(self.base_model)
        super().compile(optimizer, **kwargs)  # type: ignore[misc]

    @property
    def metrics(self) -> list[Any]:
        """What `fit` resets at the start of each epoch."""
        return list(self._means.values())

    def craft(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Adversarial images for a training batch, like x; crafted in inference mode."""
        step = tf.cast(self.optimizer.iterations, tf.int32)
        seed = tf.stack([tf.constant(self.recipe.seed), step])
        # Folded anew in each step: the weights have moved.
        return self.recipe.attack(fold(self.base_model), x, y, self.recipe.threat_model, seed)

    def forward(self, x: Tensor, kind: str) -> Tensor:
        """Logits of a training pass over 'clean' or 'adversarial' images."""
        alone = not (self.recipe.clean_weight and self.recipe.adv_weight)
        moves = alone or self.recipe.batch_norm in (kind, "both", "none")
        with nullcontext() if moves else self._statistics.held():
            return self.base_model(x, training=True)

    def train_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One update from a batch {'image': [B, H, W, C], 'label': [B]}."""
        x, y = batch["image"], batch["label"]
        x_adv = self.craft(x, y)
        with tf.GradientTape() as tape:
            terms = self.losses_of(x, x_adv, y)
            loss = terms["loss"] + sum(self.base_model.losses)
            scaled = self._scaled(loss)
        variables = self.base_model.trainable_variables
        self._apply(tape.gradient(scaled, variables), variables)
        return self._measure(loss, terms, y)

    def _scaled(self, loss: Tensor) -> Tensor:
        scale = getattr(self.optimizer, "get_scaled_loss", None)
        return scale(loss) if scale else loss

    def _apply(self, grads: list[Tensor], variables: list[Any]) -> None:
        unscale = getattr(self.optimizer, "get_unscaled_gradients", None)
        grads = unscale(grads) if unscale else grads
        self.optimizer.apply_gradients(zip(grads, variables, strict=True))

    def _measure(self, loss: Tensor, terms: dict[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        """The epoch's means so far, of what this method computes."""
        self._means["loss"].update_state(loss, sample_weight=tf.shape(y)[0])
        measured = ["loss"]
        for key, name in (("clean", "clean_accuracy"), ("adv", "adv_accuracy")):
            if key in terms:
                hit = tf.argmax(terms[key], axis=1, output_type=y.dtype) == y
                self._means[name].update_state(tf.cast(hit, tf.float32))
                measured.append(name)
        return {name: self._means[name].result() for name in measured}


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The mean of -log p(y) over the batch, a scalar."""
    return tf.reduce_mean(cross_entropy(logits, y))
