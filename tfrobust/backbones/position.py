"""A layer that adds the position of each token for a transformer."""

from __future__ import annotations

from tfrobust.runtime import keras, tf
from tfrobust.typing import Tensor


@keras.utils.register_keras_serializable(package="tfrobust")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector for its position to each token: [B, T, C] -> [B, T, C].

    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, equation 1.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the vectors, [T, C], from a normal distribution with deviation 0.02."""
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        self.embedding = self.add_weight("embedding", input_shape[1:], initializer=normal)
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        """The tokens plus their position vectors."""
        return inputs + tf.cast(self.embedding, inputs.dtype)
