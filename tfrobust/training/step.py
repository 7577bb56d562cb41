"""The training step shared by all methods."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from tfrobust.attacks.ascent import input_gradient
from tfrobust.attacks.losses import cross_entropy
from tfrobust.distribution import averaged, own_seed, replicas
from tfrobust.errors import UsageError
from tfrobust.models.folding import fold
from tfrobust.models.heads import library_of, raw
from tfrobust.plugins import takers
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS
from tfrobust.training.averaging import Averages
from tfrobust.training.batch_norm import Statistics, batch_norm_layers
from tfrobust.training.recipe import Recipe
from tfrobust.training.weight_perturbation import offsets, perturbed
from tfrobust.typing import Tensor


class RobustStep:
    """A mixin for `keras.Model`: crafts, computes the method's loss, updates, measures.

    Guarantees, for every method:
      - x_adv lies in the ball and in [0, 1] (single steps from wide noise and 'noise' go beyond
        it, as they document), and no gradient flows through it;
      - the attack's passes run in inference mode and never update BatchNorm's statistics;
      - of the training passes, those named by `batch_norm` update them;
      - the same seed and step give the same x_adv, whatever ran before.

    Attributes:
      base_model: the classifier that is trained.
      recipe: the settings that the method reads.
      goal: the column of the history that decides which epoch to keep.
      perturbs_weights: whether the method supports `recipe.awp`.
      aims: whether its attack maximises cross-entropy, and so can have a target class or be a
        single step from wide noise.
      trained: number of passes per step with a gradient by the weights.
      single_step: whether it crafts in a single step: such training can overfit to its attack.
      eps_share: the current share of eps, a variable; it rises with `eps_ramp`.
      reach: of the noise before a single step, in radii, a variable; the guard raises it.
      averages: the averaged weights, or None if `recipe.ema` is 0.
    """

    base_model: Any
    recipe: Recipe
    optimizer: Any
    goal = "select_pgd"
    perturbs_weights = False
    aims = True
    trained = 1
    averages: Averages | None
    # Defined by each method: (x, x_adv, y) -> {'loss': scalar, and the logits 'clean' and 'adv' if
    # it computes them; 'counted', a dict of weights for their accuracies, if not 1}.
    losses_of: Callable[[Tensor, Tensor | None, Tensor], dict[str, Any]]

    def __new__(cls, base_model: Any = None, *args: Any, **kwargs: Any) -> Any:
        """A method for a model of either Keras is itself a model of that Keras."""
        made = cls if issubclass(cls, _models()) else of_library(cls, library_of(base_model))
        # The next class in the method resolution order, a Keras model.
        new: Any = super(RobustStep, made).__new__  # type: ignore[misc]
        return new(made, base_model, *args, **kwargs)

    def __init__(self, base_model: Any, recipe: Recipe) -> None:
        super().__init__()
        self.base_model = base_model
        self.prepare(recipe)

    def prepare(self, recipe: Recipe) -> None:
        """Sets up recipe and metrics; called at the end of a method's constructor.

        Raises:
          UsageError: the method does not support a setting of the recipe.
        """
        self.recipe = recipe
        self._require(recipe)
        self.eps_share = tf.Variable(1.0, trainable=False, dtype=tf.float32)
        self.reach = tf.Variable(recipe.noise_reach, trainable=False, dtype=tf.float32)
        self.averages = Averages(self.base_model, recipe.ema) if recipe.ema else None
        # A metric's result already covers all replicas: Keras would add them up.
        self.distribute_reduction_method = "first"
        names = ("loss", "clean_accuracy", "adv_accuracy")
        self._means = {name: keras.metrics.Mean(name=name) for name in names}

    def _require(self, recipe: Recipe) -> None:
        name = type(self).__name__
        if recipe.awp and not self.perturbs_weights:
            raise UsageError(
                "awp: weights are perturbed with the methods "
                f"{' and '.join(takers(METHODS, 'awp'))}, found {recipe.awp:g} with {name}: choose "
                "one of these, or set awp to 0."
            )
        if recipe.attack.targeted and not self.aims:
            raise UsageError(
                f"target: expected none with {name}, whose attack is untargeted, found "
                f"{recipe.attack.target!r}."
            )
        if recipe.crafting == "nfgsm" and not self._may_step_once:
            raise UsageError(
                f"crafting: {name} has its own crafting, expected pgd, found nfgsm: leave it out, "
                f"or choose the method {', '.join(takers(METHODS, 'crafting'))} or fast."
            )

    def compile(self, optimizer: Any, **kwargs: Any) -> None:
        """Sets which BatchNorm statistics update; to be called after any (un)freezing."""
        self._freeze_batch_norm()
        self._statistics = Statistics(self.base_model)
        super().compile(optimizer, **kwargs)  # type: ignore[misc]
        # An optimiser that creates its variables in the first step causes a second trace.
        if hasattr(self.optimizer, "build"):
            self.optimizer.build(self.base_model.trainable_variables)

    def _freeze_batch_norm(self) -> None:
        """Freezes BatchNorm under the policy 'none', whatever else is unfrozen."""
        if self.recipe.batch_norm == "none":
            for layer in batch_norm_layers(self.base_model):
                layer.trainable = False

    @property
    def metrics(self) -> list[Any]:
        """The metrics that `fit` resets at the start of each epoch."""
        return list(self._means.values())

    def kept(self) -> AbstractContextManager[None]:
        """Inside the block `base_model` has the weights to keep (the averages, if enabled)."""
        return self.averages.in_place() if self.averages else nullcontext()

    @property
    def settings(self) -> Any:
        """The method's dataclass, with the method's own settings: `self.settings.gamma`."""
        return self.recipe.method

    def seed(self) -> Tensor:
        """The seed of this step's random draws: from the recipe's seed and the step, int32 [2].

        Replicas each have a part of the batch, and draw independently.
        """
        return own_seed(self.shared_seed())

    def shared_seed(self) -> Tensor:
        """The seed of draws that all replicas must share."""
        step = tf.cast(raw(self.optimizer.iterations), tf.int32)
        return tf.stack([tf.constant(self.recipe.seed), step])

    @property
    def _may_step_once(self) -> bool:
        return type(self).single_step is True or (self.aims and self.crafts)

    @property
    def single_step(self) -> bool:
        """Whether examples are crafted in one step from noise wider than the ball."""
        return self.recipe.crafting == "nfgsm"

    @property
    def crafts(self) -> bool:
        """Whether the method trains on adversarial images at all."""
        return True

    @property
    def passes(self) -> int:
        """Forward and backward passes over a batch in one step, including crafting."""
        crafting = 1 if self.single_step else self.recipe.attack.steps
        return self.trained + (crafting if self.crafts else 0)

    @property
    def ball(self) -> ThreatModel:
        """The ball of this step; its radius is a tensor, as the ramp of eps changes it."""
        whole = self.recipe.threat_model
        return replace(whole, eps=self.eps_share * whole.eps)

    def craft(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Adversarial images for a training batch, like x; crafted in inference mode."""
        model = self.attacked()
        if self.single_step:
            return self._single_step(model, x, y)
        return self.recipe.attack(model, x, y, self.ball, self.seed())

    def attacked(self) -> Callable[[Tensor], Tensor]:
        """The classifier in inference mode, as this step's attack sees it."""
        # Folded in each step, as the weights have changed.
        return fold(self.base_model)

    def _single_step(self, model: Any, x: Tensor, y: Tensor) -> Tensor:
        """N-FGSM: noise wider than the ball, then one step of length eps; no projection.

        De Jorge et al. (2022), https://arxiv.org/abs/2202.01181. In linf the noise is uniform
        in [-k eps, k eps] with k = `reach`; in other norms it is a random start in a ball k times
        as large. This is the exception to the guarantee that x_adv lies in the ball: it lies
        within (k + 1) * eps of x, and in the bounds. The recipe's step size is the length of the
        step, eps if it is None; its number of steps and random start are ignored.
        """
        ball = self.ball
        wide = replace(ball, eps=self.reach * ball.eps)
        start = wide.random_start(x, self.seed())
        grad, _ = input_gradient(model, start, y, "cross_entropy")
        longest = self.recipe.attack.step_size
        size = self.eps_share * longest if longest else ball.eps
        moved = start + ball.steepest_step(grad, size)
        return tf.stop_gradient(tf.clip_by_value(moved, *ball.bounds))

    def widen(self) -> float:
        """Widens the noise of a single step by one radius and returns the new reach."""
        self.reach.assign_add(1.0)
        return float(self.reach.numpy())

    def forward(self, x: Tensor, kind: str, *, alone: bool = False) -> Tensor:
        """Logits of a training pass over 'clean' or 'adversarial' images.

        Args:
          x: the images.
          kind: 'clean' or 'adversarial'.
          alone: whether the step has no pass over the other kind, so that this one updates
            BatchNorm's statistics under any policy.
        """
        moves = alone or self.recipe.batch_norm in (kind, "both", "none")
        with nullcontext() if moves else self._statistics.restored():
            return self.logits(x, training=True)

    def logits(self, x: Tensor, *, training: bool) -> Tensor:
        """The classifier's output for images, [B, K]."""
        return self.base_model(x, training=training)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The batch's mean cross-entropy, with the recipe's label smoothing; a scalar."""
        return mean_cross_entropy(logits, y, self.recipe.label_smoothing)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a loss [B] over the batch."""
        return tf.reduce_mean(values)

    def train_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One update from a batch {'image': [B, H, W, C], 'label': [B]}."""
        x, y = batch["image"], batch["label"]
        if self._clean_steps == "always":
            return self._clean_step(x, y)
        # Replicas cannot exchange gradients inside a branch.
        if self._clean_steps == "never" or replicas() > 1:
            return self._robust_step(x, y)
        branches = (lambda: self._robust_step(x, y), lambda: self._clean_step(x, y))
        return tf.cond(self.eps_share > 0, *branches)

    @property
    def _clean_steps(self) -> str:
        return self.recipe.clean_steps if self.crafts else "never"

    def _robust_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The method's own update."""
        x_adv = self.craft(x, y)
        with self._perturbed(x, x_adv, y):
            loss, terms, grads = self._differentiate(lambda: self.losses_of(x, x_adv, y))
        return self._updated(loss, terms, grads, y)

    def _clean_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The update while eps is 0: one pass over clean images, which carries the whole loss."""
        weight = self.loss_of_guessing(1.0) or 1.0

        def losses() -> dict[str, Any]:
            logits = self.forward(x, "clean", alone=True)
            return {"loss": weight * self.cross_entropy(logits, y), "clean": logits}

        return self._updated(*self._differentiate(losses), y)

    def _updated(
        self, loss: Tensor, terms: dict[str, Any], grads: list[Tensor], y: Tensor
    ) -> dict[str, Tensor]:
        self._apply(grads, self.base_model.trainable_variables)
        if self.averages:
            self.averages.update(raw(self.optimizer.iterations))
        return self._measure(loss, terms, y)

    def _differentiate(
        self, losses: Callable[[], dict[str, Any]]
    ) -> tuple[Tensor, dict[str, Any], list[Tensor]]:
        """The loss, the method's terms, and the (scaled) gradient by each variable."""
        with tf.GradientTape() as tape:
            terms = losses()
            loss = terms["loss"] + sum(self.base_model.losses)
            scaled = self._scaled(loss)
        variables = [raw(variable) for variable in self.base_model.trainable_variables]
        return loss, terms, tape.gradient(scaled, variables)

    def _perturbed(
        self, x: Tensor, x_adv: Tensor | None, y: Tensor
    ) -> AbstractContextManager[None]:
        if not self.recipe.awp:
            return nullcontext()
        variables = [raw(v) for v in self.base_model.trainable_variables if len(v.shape) > 1]

        def harmful() -> list[Tensor]:
            with self._statistics.restored(), tf.GradientTape() as tape:
                loss = self._scaled(self.losses_of(x, x_adv, y)["loss"])
            zero = tf.UnconnectedGradients.ZERO
            grads = tape.gradient(loss, variables, unconnected_gradients=zero)
            return offsets(variables, averaged(grads), self.recipe.awp)

        started = raw(self.optimizer.iterations) >= self.recipe.awp_warmup
        return perturbed(variables, _if(started, harmful, variables))

    def _scaled(self, loss: Tensor) -> Tensor:
        # The optimiser sums the gradients of all replicas, each of a mean over its part.
        loss = loss / replicas()
        scale = getattr(self.optimizer, "get_scaled_loss", None)
        # Keras 3's has another name, and undoes the scaling by itself.
        scale = scale or getattr(self.optimizer, "scale_loss", None)
        return scale(loss) if scale else loss

    def _apply(self, grads: list[Tensor], variables: list[Any]) -> None:
        unscale = getattr(self.optimizer, "get_unscaled_gradients", None)
        grads = unscale(grads) if unscale else grads
        self.optimizer.apply_gradients(zip(grads, variables, strict=True))

    def _measure(self, loss: Tensor, terms: dict[str, Any], y: Tensor) -> dict[str, Tensor]:
        """The epoch's running means of everything the method computes."""
        self._means["loss"].update_state(loss, sample_weight=tf.shape(y)[0])
        # Both branches of a possibly clean step must return the same structure.
        measured = list(self._means) if self._clean_steps == "first" else ["loss"]
        for key, name in (("clean", "clean_accuracy"), ("adv", "adv_accuracy")):
            if key in terms:
                hit = tf.argmax(terms[key], axis=1, output_type=y.dtype) == y
                weight = terms.get("counted", {}).get(key)
                self._means[name].update_state(tf.cast(hit, tf.float32), sample_weight=weight)
                measured.append(name)
        return {name: self._means[name].result() for name in measured}

    def loss_of_guessing(self, entropy: float) -> float | None:
        """The loss of the best constant prediction, where `entropy` is its cross-entropy.

        None if the method's loss is not determined by it.
        """
        return entropy

    def drop_unmeasured(self, epoch: int, logs: dict[str, float]) -> None:
        """Removes the accuracy on a kind of batch that the epoch did not have from its logs.

        To Keras, the mean of nothing is 0. Called as a callback's `on_epoch_end`, before callbacks
        that read the logs.

        Args:
          epoch: its index.
          logs: of the epoch, changed in place.
        """
        for name, mean in self._means.items():
            if name in logs and not mean.count.numpy():
                logs.pop(name, None)


def _models() -> tuple[type, ...]:
    """The class `Model` of each Keras that has been imported."""
    found = [keras.Model]
    if "keras" in sys.modules:
        found.append(sys.modules["keras"].Model)
    return tuple(found)


def of_library(cls: type, library: Any) -> type:
    """A method as a model of one Keras, `tf_keras` or `keras`; one cached class for each."""
    return _made_for(cls, library.__name__)


@functools.cache
def _made_for(cls: type, name: str) -> type:
    return type(cls.__name__, (cls, importlib.import_module(name).Model), {})


def _if(started: Tensor, moves_of: Callable[[], list[Tensor]], like: list[Any]) -> list[Tensor]:
    """The moves once it has started, zeros before."""
    if replicas() == 1:
        # Inside the graph only the chosen branch is computed.
        return list(tf.cond(started, moves_of, lambda: [tf.zeros_like(v) for v in like]))
    # Replicas cannot exchange gradients inside a branch.
    return [tf.where(started, move, tf.zeros_like(move)) for move in moves_of()]


def mean_cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean of -log p(y) over the batch, a scalar.

    Args:
      logits: float32 [B, K].
      y: labels, int [B].
      smoothing: this share of the label's probability is spread evenly over all K classes:
        Szegedy et al. (2016), https://arxiv.org/abs/1512.00567.
    """
    plain = _mean(cross_entropy(logits, y))
    if not smoothing:
        return plain
    even = -_mean(tf.reduce_mean(tf.nn.log_softmax(logits), axis=1))
    return (1 - smoothing) * plain + smoothing * even


def _mean(values: Tensor) -> Tensor:
    """The mean of [B]; 0 if B is 0, as in a part of a small batch."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype))
