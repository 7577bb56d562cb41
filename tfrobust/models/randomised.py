"""Models whose gradients need care: random ones, and ones with steps that have no gradient.

Athalye, Carlini and Wagner (2018), "Obfuscated gradients give a false sense of security",
https://arxiv.org/abs/1802.00420: attack a random model in expectation (EOT), and pass through
a step without a gradient by that of a substitute (BPDA). Both are wrappers, whose results
are attacked and evaluated like any other model.
"""

from __future__ import annotations

from tfrobust.errors import UsageError
from tfrobust.models.classifier import Classifier
from tfrobust.models.inference import inference
from tfrobust.runtime import tf
from tfrobust.typing import Function, Model, Tensor


def expectation(model: Model, draws: int) -> Function:
    """A model that draws at random, as its mean over several draws (EOT).

    The probabilities are averaged, so that predictions and gradients are those of the
    expectation, up to the draws.

    Args:
      model: images float32 [B, H, W, C] in [0, 1] -> logits [B, K]; its random
        parts draw again at each call.
      draws: calls for each batch, 1 or more; memory and time grow with it.

    Returns:
      Images -> the logarithm of the mean probabilities, float32 [B, K].

    Raises:
      UsageError: draws below 1.

    Examples:
      >>> noisy = lambda images: model(images) + tf.random.normal([tf.shape(images)[0], 10])
      >>> steady = tr.models.expectation(noisy, draws=64)
      >>> bool(np.mean(np.argmax(steady(x), 1) == np.argmax(model(x), 1)) > 0.8)
      True
    """
    if draws < 1:
        raise UsageError(f"draws: expected 1 or more, found {draws!r}.")
    logits = inference(model)

    def mean(x: Tensor) -> Tensor:
        def one(_: Tensor) -> Tensor:
            return tf.nn.log_softmax(logits(x))

        each = tf.map_fn(
            one, tf.range(draws), fn_output_signature=tf.float32, parallel_iterations=1
        )
        return tf.reduce_logsumexp(each, axis=0) - tf.math.log(float(draws))

    return mean


def in_expectation(classifier: Classifier, draws: int) -> Classifier:
    """A classifier as its mean over several draws, as its notes say.

    Args:
      classifier: from `as_classifier`.
      draws: as in `expectation`.

    Raises:
      UsageError: draws below 1.
    """
    note = f"the model is attacked and evaluated as its mean over {draws} draws (EOT)"
    return Classifier(
        expectation(classifier, draws),
        classes=classifier.classes,
        notes=(*classifier.notes, note),
        range_known=classifier.range_known,
    )


def smoothed(model: Model, sigma: float, draws: int) -> Function:
    """The mean of a model over Gaussian noise on its images, as an attack sees it.

    What `certify` certifies names the class most often named; this is its soft form, with a
    gradient (Salman et al. 2019, https://arxiv.org/abs/1906.04584).

    Args:
      model: as for `expectation`.
      sigma: standard deviation of the noise, in pixels of [0, 1]; above 0.
      draws: of noise for each batch.

    Raises:
      UsageError: a setting is out of range.

    Examples:
      >>> soft = tr.models.smoothed(model, sigma=0.1, draws=16)
      >>> soft(x[:4]).shape == (4, 10)
      True
    """
    if not sigma > 0:
        raise UsageError(f"sigma: expected a number above 0, found {sigma!r}.")
    logits = inference(model)
    return expectation(lambda x: logits(x + tf.random.normal(tf.shape(x), stddev=sigma)), draws)


def straight_through(
    model: Model, transform: Function, substitute: Function | None = None
) -> Function:
    """A model behind a step without a useful gradient, with a substitute's gradient (BPDA).

    Args:
      model: images -> logits, float32 [B, K].
      transform: what is done to images float32 [B, H, W, C] in [0, 1] before the model sees
        them, such as quantisation or JPEG coding; of the same shape.
      substitute: a differentiable step that does about the same; None is the identity.

    Returns:
      Images -> `model(transform(images))`, whose gradient is that of
      `model(substitute(images))` at the transformed images.

    Examples:
      >>> defended = tr.models.straight_through(model, lambda images: tf.round(images * 7) / 7)
      >>> attack = tr.PGD(steps=10, early_stop=False)
      >>> bool(np.any(attack.perturb(defended, x[:4], y[:4], ball) != x[:4]))
      True
    """
    logits = inference(model)

    def forward(x: Tensor) -> Tensor:
        near = x if substitute is None else substitute(x)
        return logits(near + tf.stop_gradient(transform(x) - near))

    return forward
