"""The interfaces between the parts of tfrobust: protocols and aliases.

Your own classes satisfy a protocol structurally, without importing anything of this project. At
run time ``isinstance`` only checks which attributes exist; the contracts of `tfrobust.testing`
check their behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

# `tf.Tensor` itself, and not a protocol with `shape` and `dtype`: editors know TensorFlow's class
# (Pyright and Pylance include stubs of it, mypy uses types-tensorflow), and complete its methods. A
# protocol would offer only its few names and reject a `tf.Tensor` wherever the stubs differ.
# Without stubs mypy treats it as Any, as here: then it informs readers, and checks nothing.
if TYPE_CHECKING:
    import tensorflow as tf

    from tfrobust.data.types import ImageSet
    from tfrobust.threat_model import ThreatModel
    from tfrobust.training.recipe import Recipe

    Tensor: TypeAlias = tf.Tensor
    Dataset: TypeAlias = tf.data.Dataset[Any]
    Source: TypeAlias = ImageSet | str | Path | Dataset | tuple["Images", "Labels"] | Sequence[Any]
else:
    # TensorFlow takes seconds to import, and these are not used at run time.
    Tensor = Dataset = Source = Any

#: A value in JSON.
Json: TypeAlias = dict[str, "Json"] | list["Json"] | str | float | bool | None
#: A NumPy array.
Array: TypeAlias = np.ndarray
#: Users' images [N, H, W, C].
Images: TypeAlias = Array | Tensor
#: Users' labels: [N], [N, 1] or one-hot rows [N, K].
Labels: TypeAlias = Array | Tensor | Sequence[int]
#: Images float32 [B, H, W, C] in [0, 1] -> logits [B, K], in inference mode.
Function: TypeAlias = Callable[[Tensor], Tensor]
#: Any classifier: a model of tf_keras or Keras 3, the result of `load_any`, a function.
#: `as_classifier` turns it into a `Classifier`.
Model: TypeAlias = Callable[..., Any]


@runtime_checkable
class Classifier(Protocol):
    """Images float32 [B, H, W, C] in [0, 1] -> float32 logits [B, K], in inference mode.

    `as_classifier` returns one.
    """

    @property
    def classes(self) -> int:
        """K."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was detected about the model and done about it, one sentence each."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Logits float32 [B, K] of images float32 [B, H, W, C] in [0, 1]."""

    def probabilities(self, logits: Tensor, /) -> Tensor:
        """The model's own probabilities for logits [B, K], float32 [B, K]."""


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass of an attack's settings, called inside a graph.

    It never judges itself: the caller projects onto the ball, verifies on the model, repeats.
    Loops over tensors are written as `tf.while_loop`.
    """

    #: Marks it as a dataclass: it is printed, compared, and saved by its fields.
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def restarts(self) -> int:
        """Independent runs, made by the caller with other seeds on the active rows."""

    def __call__(
        self, model: Function, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor, /
    ) -> Tensor:
        """One run: adversarial images, float32 like x.

        Args:
          model: images float32 [B, H, W, C] in [0, 1] -> logits [B, K].
          x: clean images, float32 [B, H, W, C]; B may be unknown while tracing.
          y: labels, int32 [B].
          threat_model: the ball.
          seed: int32 [2], for all random draws.
        """


@runtime_checkable
class RecordedAttack(Attack, Protocol):
    """An attack that can be recorded: it returns its course, step by step."""

    @property
    def steps(self) -> int:
        """Moves in one try."""

    @property
    def own_norm(self) -> str:
        """The norm by which it is measured if no ball is given: 'l2', 'l0'."""

    def path(
        self, model: Function, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor, /
    ) -> Any:
        """A tuple with the images `x_adv`, float32 [S + 1, B, H, W, C], and more of each step."""


@runtime_checkable
class MinimalAttack(Attack, Protocol):
    """An attack that searches for the nearest adversarial image instead of any in a ball."""

    @property
    def minimal(self) -> bool:
        """Whether it does; some attacks, such as FAB, depend on their settings."""

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms that it supports."""

    @property
    def own_norm(self) -> str:
        """The norm of its distance by default."""


@runtime_checkable
class Method(Protocol):
    """The settings of a training method, for `tfrobust.robust`: ``Trades(beta=6)``."""

    @property
    def place(self) -> str:
        """The location of the training step, ``package.module:name``."""

    def recipe(self, ball: ThreatModel, /) -> Recipe:
        """The settings of that step, for a ball."""

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for saving."""


@runtime_checkable
class Explainer(Protocol):
    """Maps of what a model looks at; its own settings are keywords with defaults."""

    def __call__(self, model: Any, x: Array, target: Array, /) -> Array:
        """Float32 maps, [N, H, W] of 0 or more or signed [N, H, W, C].

        Args:
          model: a Keras model or `Classifier`, images in [0, 1] -> logits [N, K].
          x: images float32 [N, H, W, C] in [0, 1].
          target: int [N], the class to explain in each image.
        """


@runtime_checkable
class Batches(Protocol):
    """Images and labels, a batch at a time, iterable repeatedly.

    A `tf.data.Dataset` of dicts, as made by `tfrobust.data.pipeline`, is one.
    """

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        """Dicts of 'image', float32 [B, H, W, C] in [0, 1], and 'label', int32 [B]."""
