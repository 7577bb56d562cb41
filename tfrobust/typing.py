"""What the parts of tfrobust are to each other, for whoever builds one: protocols and aliases.

A class of your own fits a protocol by its form alone, without importing anything of this
project. At run time ``isinstance`` looks only at which attributes are there; what they must do
is checked by the contracts of `tfrobust.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

# `tf.Tensor` itself, and no protocol of our own with `shape` and `dtype`: editors know
# TensorFlow's own class (Pyright and Pylance bring stubs of it, mypy takes types-tensorflow), and
# complete its methods. A protocol would show its few names in their place and refuse a
# `tf.Tensor` wherever the stubs put things otherwise. Without stubs mypy takes it for Any, as
# here: there it is a word that a reader understands, and checks nothing.
if TYPE_CHECKING:
    import tensorflow as tf

    from tfrobust.data.types import ImageSet
    from tfrobust.threat_model import ThreatModel
    from tfrobust.training.recipe import Recipe

    Tensor: TypeAlias = tf.Tensor
    Dataset: TypeAlias = tf.data.Dataset[Any]
    Source: TypeAlias = ImageSet | str | Path | Dataset | tuple["Images", "Labels"] | Sequence[Any]
else:
    # TensorFlow takes seconds to import, and nothing looks at these when it runs.
    Tensor = Dataset = Source = Any

#: A value in JSON.
Json: TypeAlias = dict[str, "Json"] | list["Json"] | str | float | bool | None
#: What NumPy holds.
Array: TypeAlias = np.ndarray
#: Images [N, H, W, C] as users have them.
Images: TypeAlias = Array | Tensor
#: Labels as users have them: [N], [N, 1] or one-hot rows [N, K].
Labels: TypeAlias = Array | Tensor | Sequence[int]
#: Images float32 [B, H, W, C] in [0, 1] -> logits [B, K], in inference mode.
Function: TypeAlias = Callable[[Tensor], Tensor]
#: Any classifier, whoever made it: a model of tf_keras or Keras 3, what `load_any` returns, a
#: function. `as_classifier` makes a `Classifier` of it.
Model: TypeAlias = Callable[..., Any]


@runtime_checkable
class Classifier(Protocol):
    """Images float32 [B, H, W, C] in [0, 1] -> float32 logits [B, K], in inference mode.

    What `as_classifier` returns is one.
    """

    @property
    def classes(self) -> int:
        """K."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found out of the model and done about it, a sentence each."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Logits float32 [B, K] of images float32 [B, H, W, C] in [0, 1]."""

    def probabilities(self, logits: Tensor, /) -> Tensor:
        """What the model itself says of logits [B, K], float32 [B, K]."""


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass of an attack's settings, called inside a graph.

    It never judges itself: the caller projects onto the ball, verifies on the model, repeats.
    Loops over tensors are written as `tf.while_loop`.
    """

    #: That it is a dataclass: it is shown, compared, and saved by its fields.
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def restarts(self) -> int:
        """Independent runs, which the caller makes, with other seeds, on what still stands."""

    def __call__(
        self, model: Function, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor, /
    ) -> Tensor:
        """One run: adversarial images, float32 like x.

        Args:
          model: images float32 [B, H, W, C] in [0, 1] -> logits [B, K].
          x: clean images, float32 [B, H, W, C]; B may be unknown while tracing.
          y: labels, int32 [B].
          threat_model: the ball.
          seed: int32 [2], for all that is random.
        """


@runtime_checkable
class RecordedAttack(Attack, Protocol):
    """An attack that can also be watched: it gives its course, step by step."""

    @property
    def steps(self) -> int:
        """Moves in one try."""

    @property
    def own_norm(self) -> str:
        """The norm that it is held by where no ball is given: 'l2', 'l0'."""

    def path(
        self, model: Function, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor, /
    ) -> Any:
        """A tuple with the images `x_adv`, float32 [S + 1, B, H, W, C], and more of each step."""


@runtime_checkable
class MinimalAttack(Attack, Protocol):
    """An attack that looks for the nearest adversarial image instead of any in a ball."""

    @property
    def minimal(self) -> bool:
        """That it does: an attack such as FAB has it by its settings."""

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms that it works in."""

    @property
    def own_norm(self) -> str:
        """The norm of its distance where none is asked for."""


@runtime_checkable
class Method(Protocol):
    """The settings of a training method, as `tfrobust.robust` takes them: ``Trades(beta=6)``."""

    @property
    def place(self) -> str:
        """Where the training step is, ``package.module:name``."""

    def recipe(self, ball: ThreatModel, /) -> Recipe:
        """What that step reads, for a ball."""

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for saving."""


@runtime_checkable
class Explainer(Protocol):
    """Maps of what a model looks at; settings of its own are keywords with defaults."""

    def __call__(self, model: Any, x: Array, target: Array, /) -> Array:
        """Float32 maps, [N, H, W] of 0 or more or signed [N, H, W, C].

        Args:
          model: a Keras model or `Classifier`, images in [0, 1] -> logits [N, K].
          x: images float32 [N, H, W, C] in [0, 1].
          target: int [N], the class that is explained in each.
        """


@runtime_checkable
class Batches(Protocol):
    """Images and labels, a batch at a time, as often as they are asked for.

    A `tf.data.Dataset` of dicts is one, as `tfrobust.data.pipeline` makes them.
    """

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        """Dicts of 'image', float32 [B, H, W, C] in [0, 1], and 'label', int32 [B]."""
