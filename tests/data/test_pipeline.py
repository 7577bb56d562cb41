"""Batches: their order, their epochs, and that threads and storage do not show in them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tfrobust.config import AugmentConfig
from tfrobust.data import pipeline
from tfrobust.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfrobust.data.types import ImageSet
from tfrobust.errors import UsageError
from tfrobust.runtime import tf

EVERYTHING = AugmentConfig(True, 2, 0.3, 0.3, 0.3, 0.1, 0.1, 0.1, 0.1)
N, BATCH = 22, 4
STEPS = 6


@pytest.fixture
def data() -> ImageSet:
    """22 images whose label is their index."""
    pixels = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    return ImageSet(pixels, np.arange(N, dtype=np.int32), tuple(str(i) for i in range(N)))


def _take(batches, count: int) -> list[dict[str, np.ndarray]]:
    return list(itertools.islice(batches.as_numpy_iterator(), count))


def _epoch(batches) -> list[int]:
    return [int(label) for batch in _take(batches, STEPS) for label in batch["label"]]


def _assert_same(one: list, other: list) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a["label"], b["label"])
        np.testing.assert_array_equal(a["image"], b["image"])


@pytest.mark.parametrize("n, batch_size, drop, steps", [
    (22, 4, False, 6), (22, 4, True, 5), (24, 4, False, 6), (24, 4, True, 6), (3, 4, False, 1),
])  # fmt: skip
def test_steps_per_epoch(n: int, batch_size: int, drop: bool, steps: int):
    assert steps_per_epoch(n, batch_size, drop) == steps


def test_a_batch_holds_the_images_in_0_to_1_and_their_labels(data: ImageSet):
    batches = training_batches(data, batch_size=BATCH, seed=3)
    for batch in _take(batches, STEPS):
        assert batch["image"].dtype == np.float32 and batch["label"].dtype == np.int32
        expected = data.images[batch["label"]].astype(np.float32) / 255
        np.testing.assert_array_equal(batch["image"], expected)


def test_every_image_comes_once_an_epoch_and_the_last_batch_is_short(data: ImageSet):
    batches = _take(training_batches(data, batch_size=BATCH, seed=3), 3 * STEPS)
    assert [len(batch["label"]) for batch in batches] == [4, 4, 4, 4, 4, 2] * 3
    epochs = np.concatenate([batch["label"] for batch in batches]).reshape(3, N)
    assert (np.sort(epochs, axis=1) == np.arange(N)).all()
    assert len({tuple(epoch) for epoch in epochs} | {tuple(range(N))}) == 4


def test_drop_remainder_gives_full_batches_of_known_size(data: ImageSet):
    batches = training_batches(data, batch_size=BATCH, seed=3, drop_remainder=True)
    assert batches.element_spec["image"].shape == (4, 8, 8, 3)
    assert batches.element_spec["label"].shape == (4,)
    labels = [batch["label"] for batch in _take(batches, 10)]
    assert all(len(set(np.concatenate(labels[i : i + 5]))) == 20 for i in (0, 5))


def test_batches_are_the_same_for_1_thread_and_8(data: ImageSet):
    # Enlarged, because TensorFlow gives small tensors to one thread anyway.
    large = ImageSet(data.images.repeat(6, 1).repeat(6, 2), data.labels, data.label_names)
    streams = []
    for threads in (1, 8):
        batches = training_batches(large, batch_size=8, seed=3, augment=EVERYTHING)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.threading.max_intra_op_parallelism = threads
        streams.append(_take(batches.with_options(options), 12))
    _assert_same(*streams)


def test_a_stream_resumed_at_an_epoch_continues_the_uninterrupted_one(data: ImageSet):
    settings = {"batch_size": BATCH, "seed": 3, "augment": EVERYTHING}
    whole = _take(training_batches(data, **settings), 4 * STEPS)
    resumed = _take(training_batches(data, **settings, first_epoch=2), 2 * STEPS)
    _assert_same(whole[2 * STEPS :], resumed)


def test_augmentation_is_drawn_anew_each_epoch_and_for_each_image(data: ImageSet):
    grey = ImageSet(np.full_like(data.images, 128), data.labels, data.label_names)
    config = AugmentConfig(gaussian_noise=0.1)
    batches = _take(training_batches(grey, batch_size=BATCH, seed=3, augment=config), 2 * STEPS)
    noise = np.concatenate([batch["image"] for batch in batches]).reshape(2 * N, -1)
    assert len(np.unique(noise, axis=0)) == 2 * N


def test_an_examples_augmentation_does_not_depend_on_the_batch_size(data: ImageSet):
    def by_label(batch_size: int) -> dict[int, bytes]:
        batches = training_batches(data, batch_size=batch_size, seed=3, augment=EVERYTHING)
        pairs = batches.unbatch().take(N).as_numpy_iterator()
        return {int(one["label"]): one["image"].tobytes() for one in pairs}

    assert by_label(4) == by_label(7)


def test_the_seed_decides_order_and_augmentation(data: ImageSet):
    orders = {tuple(_epoch(training_batches(data, batch_size=BATCH, seed=s))) for s in range(5)}
    assert len(orders) == 5
    again = _epoch(training_batches(data, batch_size=BATCH, seed=0))
    assert tuple(again) in orders


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 + 7, 2**63 - 1])
def test_any_seed_of_63_bits_serves(data: ImageSet, seed: int):
    assert sorted(_epoch(training_batches(data, batch_size=BATCH, seed=seed))) == list(range(N))


def test_shuffling_favours_no_place(data: ImageSet):
    batches = _take(training_batches(data, batch_size=N, seed=3), 40)
    order = np.array([batch["label"] for batch in batches])
    # Uniform on 0..21 at each place: mean 10.5, standard deviation sqrt((22^2 - 1) / 12)
    # = 6.34; the mean of 40 epochs deviates by 6.34 / sqrt(40) = 1.0; four and a half.
    assert np.abs(order.mean(axis=0) - 10.5).max() < 4.5


def test_a_memory_map_gives_the_batches_of_an_array(data: ImageSet, tmp_path: Path):
    np.save(tmp_path / "images.npy", data.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    on_disk = ImageSet(mapped, data.labels, data.label_names)
    streams = [
        _take(training_batches(one, batch_size=BATCH, seed=3, augment=EVERYTHING), STEPS)
        + _take(evaluation_batches(one, BATCH), STEPS)
        for one in (data, on_disk)
    ]
    _assert_same(*streams)


def test_evaluation_gives_all_images_in_order(data: ImageSet):
    batches = evaluation_batches(data, 8)
    assert batches.cardinality().numpy() == 3
    found = list(batches.as_numpy_iterator())
    assert [len(batch["label"]) for batch in found] == [8, 8, 6]
    labels = np.concatenate([batch["label"] for batch in found])
    images = np.concatenate([batch["image"] for batch in found])
    np.testing.assert_array_equal(labels, data.labels)
    np.testing.assert_array_equal(images, data.images.astype(np.float32) / 255)


def test_labels_of_another_integer_type_become_int32(data: ImageSet):
    wide = ImageSet(data.images, data.labels.astype(np.int64), data.label_names)
    assert next(iter(evaluation_batches(wide, 4)))["label"].dtype == tf.int32


def test_the_images_are_read_where_they_are(data: ImageSet):
    batches = evaluation_batches(data, N)
    data.images[5] = 255
    assert (next(iter(batches))["image"][5].numpy() == 1).all()


@pytest.mark.parametrize("augment", [AugmentConfig(), EVERYTHING], ids=["plain", "augmented"])
def test_nothing_of_the_data_is_in_the_graph(augment: AugmentConfig):
    def graph_size(n: int) -> int:
        data = ImageSet(np.zeros((n, 8, 8, 3), np.uint8), np.zeros(n, np.int32), ("zero",))
        batches = training_batches(data, batch_size=BATCH, seed=3, augment=augment)
        return len(tf.raw_ops.DatasetToGraphV2(input_dataset=batches._variant_tensor).numpy())

    # Only the digits of n may differ.
    assert abs(graph_size(20_000) - graph_size(20)) < 100


def test_neither_the_pipeline_nor_its_consumer_is_traced_again(
    data: ImageSet, monkeypatch: pytest.MonkeyPatch
):
    traces = []
    traced = pipeline.augment_batch
    monkeypatch.setattr(pipeline, "augment_batch", lambda *args: traces.append(1) or traced(*args))
    batches = training_batches(data, batch_size=BATCH, seed=3, augment=EVERYTHING)
    at_first = len(traces)

    @tf.function
    def step(iterator):
        return tf.reduce_sum(next(iterator)["image"])

    for _ in range(2):
        iterator = iter(batches)
        for _ in range(2 * STEPS):
            step(iterator)
    assert len(traces) == at_first == 1
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("settings, complaint", [
    ({"batch_size": 0}, "batch_size 0"),
    ({"batch_size": 23, "drop_remainder": True}, "full batch of 23, found 22"),
    ({"batch_size": 4, "seed": -1}, "found -1"),
    ({"batch_size": 4, "seed": 2**63}, "found 9223372036854775808"),
    ({"batch_size": 4, "first_epoch": -1}, "found 3 and -1"),
])  # fmt: skip
def test_wrong_settings_are_told(data: ImageSet, settings: dict, complaint: str):
    with pytest.raises(UsageError, match=complaint):
        training_batches(data, **{"seed": 3, **settings})


def test_an_empty_set_is_told(data: ImageSet):
    empty = data.subset(np.arange(0))
    with pytest.raises(UsageError, match="found 0 images"):
        evaluation_batches(empty, 4)
