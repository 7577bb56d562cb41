"""Sources of any form, in memory or larger than it: the same images, and memory that stays flat."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tfrobust.data.mapped import convert, is_mapped
from tfrobust.data.sources import as_batches, as_images
from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.runtime import tf


def on_disk(tmp_path):
    return ReadOptions(memory_limit=0, cache_dir=str(tmp_path))


def images_of(kind, count=70):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (count, 6, 5, 3))
    return {
        "uint8": whole.astype(np.uint8),
        "unit floats": (whole / 255).astype(np.float32),
        "doubles": whole / 255,
        "whole floats": whole.astype(np.float32),
        "uint16": (whole * 257).astype(np.uint16),
        "bool": whole > 127,
        "grey": whole[..., 0].astype(np.uint8),
    }[kind]


KINDS = ("uint8", "unit floats", "doubles", "whole floats", "uint16", "bool", "grey")


@pytest.mark.diagonal
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [None, 1, 32])
def test_a_data_set_on_disk_is_the_one_in_memory(kind, batch, tmp_path):
    x, y = images_of(kind), np.arange(70) % 7
    source = tf.data.Dataset.from_tensor_slices((x, y))
    # Grey images without an axis of channels are told from one image by their batch.
    source = source.batch(batch or 70) if batch or kind == "grey" else source
    inside, outside = as_images((x, y)), as_images(source, options=on_disk(tmp_path))
    assert is_mapped(outside.images) and not is_mapped(inside.images)
    assert outside.images.dtype == inside.images.dtype
    np.testing.assert_array_equal(outside.images, inside.images)
    np.testing.assert_array_equal(outside.labels, inside.labels)
    assert not list(tmp_path.iterdir()), "the file has no name, and goes with the process"


def test_a_map_of_a_file_stays_where_it_is(tmp_path):
    x = images_of("unit floats")
    np.save(tmp_path / "x.npy", x)
    found = as_images((np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(70) % 7))
    assert is_mapped(found.images)
    np.testing.assert_array_equal(found.images, x)


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.2])
def test_what_is_refused_in_memory_is_refused_on_disk(value, tmp_path):
    x = images_of("unit floats")
    x[66, 0, 0, 0] = value
    source = tf.data.Dataset.from_tensor_slices((x, np.arange(70) % 7)).batch(8)
    for options in (ReadOptions(), on_disk(tmp_path)):
        with pytest.raises(TFRobustError):
            as_images(source, options=options)


def test_images_of_two_sizes_or_types_are_refused(tmp_path):
    sizes = tf.data.Dataset.from_generator(
        lambda: ((np.zeros((4 + k, 4, 3), np.uint8), 0) for k in range(2)),
        output_signature=(tf.TensorSpec([None, 4, 3], tf.uint8), tf.TensorSpec([], tf.int32)),
    )
    for options in (ReadOptions(), on_disk(tmp_path)):
        with pytest.raises(TFRobustError):
            as_images(sizes, options=options)


def test_converting_a_map_in_chunks_equals_converting_it_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("tfrobust.data.mapped._CHUNK_BYTES", 1000)
    x = images_of("unit floats")
    np.save(tmp_path / "x.npy", x)
    made = convert(np.load(tmp_path / "x.npy", mmap_mode="r"), lambda rows: rows[..., :1] * 2)
    assert is_mapped(made)
    np.testing.assert_array_equal(made, x[..., :1] * 2)


def test_batches_are_pixels_and_labels_any_number_of_times():
    x, y = images_of("uint8"), np.arange(70) % 7
    batches = as_batches(x, y, batch_size=32)
    for _ in range(2):
        found = list(batches)
        assert [len(labels) for _, labels in found] == [32, 32, 6] and len(batches) == 3
        np.testing.assert_allclose(np.concatenate([a for a, _ in found]), x / 255, atol=1e-7)
        np.testing.assert_array_equal(np.concatenate([b for _, b in found]), y)
        assert {(a.dtype, b.dtype) for a, b in found} == {(np.dtype("f4"), np.dtype("i4"))}
    with pytest.raises(UsageError):
        as_batches(x, y, batch_size=0)


def test_memory_stays_flat_while_more_than_the_limit_is_evaluated(tmp_path):
    # In a process of its own: what is asked is what the whole of it cannot give back.
    script = textwrap.dedent(f"""
        import numpy as np, tensorflow as tf, keras, tfrobust as tr
        from pathlib import Path
        def megabytes():
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(l for l in lines if l.startswith("RssAnon")).split()[1]) / 1024
        def images(count):
            def batch(k):
                x = tf.random.stateless_uniform([100, 64, 64, 3], [0, tf.cast(k, tf.int32)])
                return x, tf.range(100) % 10
            return tf.data.Dataset.range(count // 100).map(batch)
        model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.AveragePooling2D(16),
                                  keras.layers.Flatten(), keras.layers.Dense(10)])
        options = tr.ReadOptions(memory_limit=8 << 20, cache_dir={str(tmp_path)!r})
        def run(count):
            data = tr.as_images(images(count), options=options)
            report = tr.evaluate(model, data, tr.Linf(1 / 255), attacks="fgsm")
            assert len(report.labels) == count
        run(300)
        before = megabytes()
        run(4000)
        print(megabytes() - before)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    # 4,000 such images are 197 MB.
    assert float(done.stdout.split()[-1]) < 80
