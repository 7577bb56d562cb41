"""Batches from an image set: gathered as uint8, augmented as a whole, prefetched.

The images stay where they are, once: in the array of the `ImageSet`, or on disk if that is a
memory map. A batch is one fancy-indexing read of its rows, so no part of the data set is baked
into a graph or copied for an iterator.

Both streams work under `tf.distribute`, which splits each batch over the replicas. Drop the
remainder then: a final batch smaller than the replica count raises.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import numpy as np

from tfrobust.config import AugmentConfig
from tfrobust.data.as_pixels import as_pixels
from tfrobust.data.augment import augment as augment_batch
from tfrobust.data.types import ImageSet
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Dataset, Tensor

_NO_AUGMENTATION = AugmentConfig()


def steps_per_epoch(n: int, batch_size: int, drop_remainder: bool = False) -> int:
    """The number of batches in one epoch of `n` examples."""
    return n // batch_size if drop_remainder else -(-n // batch_size)


def training_batches(
    data: ImageSet,
    *,
    batch_size: int,
    seed: int,
    augment: AugmentConfig = _NO_AUGMENTATION,
    first_epoch: int = 0,
    drop_remainder: bool = False,
) -> Dataset:
    """An endless stream of shuffled, augmented batches, epoch after epoch.

    Guarantee: epoch e depends only on `data`, `batch_size`, `seed`, `augment` and e, so a run
    resumed with `first_epoch=e` sees exactly the batches of an uninterrupted one, whatever the
    number of threads. The order and each example's augmentation are drawn from (`seed`, e), the
    latter independently of the batch that contains the example.

    Args:
      data: the images; not copied.
      batch_size: images in a batch; the last of an epoch may be short.
      seed: 0 to 2^63 - 1.
      augment: the augmentation; none by default.
      first_epoch: the epoch, counted from 0, that the stream starts with.
      drop_remainder: drop the short last batch of each epoch.

    Returns:
      A `tf.data.Dataset` of {'image': float32 [B, H, W, 3] in [0, 1], 'label': int32 [B]},
      infinite: pass `steps_per_epoch` to `fit`.

    Raises:
      UsageError: an epoch would have no batch, or an argument is out of range.
    """
    _check(data, batch_size)
    if drop_remainder and len(data) < batch_size:
        raise UsageError(
            f"drop_remainder: expected at least one full batch of {batch_size}, found "
            f"{len(data)} images: lower batch_size."
        )
    if not 0 <= seed < 2**63 or first_epoch < 0:
        raise UsageError(
            "training_batches: expected a seed in 0..2^63-1 and a first_epoch of at least 0, "
            f"found {seed} and {first_epoch}."
        )

    def draw(epoch: Tensor) -> Dataset:
        drawn = tf.data.Dataset.from_tensor_slices(_draw_epoch(len(data), seed, epoch))
        return drawn.batch(batch_size, drop_remainder=drop_remainder)

    def load(index: Tensor, seeds: Tensor) -> dict[str, Tensor]:
        batch = _gather(data, index)
        return {**batch, "image": augment_batch(batch["image"], seeds, augment)}

    epochs = tf.data.Dataset.counter(start=first_epoch)
    return _map_and_prefetch(epochs.flat_map(draw), load)


def evaluation_batches(data: ImageSet, batch_size: int) -> Dataset:
    """All examples once, in order, without augmentation.

    Args:
      data: the images; not copied.
      batch_size: images in a batch; the last may be short.

    Returns:
      A finite `tf.data.Dataset` of {'image': float32 [B, H, W, 3] in [0, 1],
      'label': int32 [B]} of known cardinality.

    Raises:
      UsageError: there are no images, or `batch_size` is below 1.
    """
    _check(data, batch_size)
    batches = tf.data.Dataset.range(len(data)).batch(batch_size)
    return _map_and_prefetch(batches, functools.partial(_gather, data))


def _map_and_prefetch(batches: Dataset, load: Callable[..., dict[str, Tensor]]) -> Dataset:
    # AutoGraph has nothing to convert here, and would wrap our errors in its own.
    load = tf.autograph.experimental.do_not_convert(load)
    workers = os.cpu_count() or 1
    loaded = batches.map(load, num_parallel_calls=workers, deterministic=True)
    # Autotuning sleeps for ever longer periods, and the end of `fit` waits for it to wake: up to
    # as long again as an epoch took. With one map and one prefetch there is nothing to tune.
    options = tf.data.Options()
    options.autotune.enabled = False
    # Each worker takes its part of every batch: there are no files to shard.
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return loaded.prefetch(2).with_options(options)


def _check(data: ImageSet, batch_size: int) -> None:
    if len(data) == 0 or batch_size < 1:
        raise UsageError(
            "Expected at least one image and a batch_size of at least 1, "
            f"found {len(data)} images and batch_size {batch_size}."
        )


def _draw_epoch(n: int, seed: int, epoch: Tensor) -> tuple[Tensor, Tensor]:
    """The order of an epoch, int64 [n], and the seeds of its examples, int32 [n, 2]."""
    key = tf.stack([tf.constant(seed, tf.int64), epoch])
    order_key, seeds_key = tf.unstack(tf.random.split(key, 2))
    order = tf.random.experimental.stateless_shuffle(tf.range(n, dtype=tf.int64), order_key)
    seeds = tf.random.stateless_uniform([n, 2], seeds_key, minval=None, maxval=None, dtype=tf.int32)
    return order, tf.gather(seeds, order)


def _gather(data: ImageSet, index: Tensor) -> dict[str, Tensor]:
    """The batch at `index` (int64 [B]), images as float32 in [0, 1]."""

    def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return data.images[rows], data.labels[rows].astype(np.int32)

    # Stateless, or TensorFlow's determinism switch would make the map sequential.
    dtypes = (tf.as_dtype(data.images.dtype), tf.int32)
    images, labels = tf.numpy_function(read, [index], dtypes, stateful=False)
    images = tf.ensure_shape(images, [index.shape[0], *data.image_shape])
    labels = tf.ensure_shape(labels, [index.shape[0]])
    return {"image": as_pixels(images), "label": labels}
