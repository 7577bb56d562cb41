"""What TensorFlow Serving would meet: its own requests, and inputs that mean harm.

Its binary is not needed: requests made of its protos run through the SavedModel's
signatures in a process that knows plain TensorFlow only.
"""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfrobust.export import MAX_PIXELS, export
from tfrobust.export.extras import FOLDER, WARM_UP, read_labels
from tfrobust.runtime import keras, tf

SIDE = 8
NAMES = ("red", "green", "blüe")


def model() -> keras.Model:
    image = keras.Input((SIDE, SIDE, 3))
    return keras.Model(image, 10 * keras.layers.GlobalAveragePooling2D()(image))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contract") / "colours"
    x = np.random.default_rng(0).random((5, SIDE, SIDE, 3), np.float32)
    return export(model(), path, NAMES, check_images=x)


ANSWERS = """
import sys
import numpy as np, tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
assert "tfrobust" not in sys.modules
folder = {folder!r}
served = tf.saved_model.load(folder).signatures
seen = []
for record in tf.data.TFRecordDataset(folder + "/assets.extra/tf_serving_warmup_requests"):
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    request = log.predict_log.request
    assert request.model_spec.name == "colours"
    signature = served[request.model_spec.signature_name]
    inputs = {{k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}}
    assert set(inputs) == set(signature.structured_input_signature[1])
    out = signature(**inputs)
    assert np.isfinite(out["logits"]).all() and set(out["label_name"].numpy()) <= {{
        b"red", b"green", "blüe".encode()}}
    seen.append((request.model_spec.signature_name, len(out["label"])))
assert seen == [("serving_default", 1), ("serving_default", 5), ("image_bytes", 1)], seen
"""


def test_warm_up_requests_and_labels_are_beside_it(folder: Path) -> None:
    assert (folder / FOLDER / WARM_UP).is_file() and read_labels(folder) == list(NAMES)


def test_a_saved_model_of_others_has_no_labels(tmp_path: Path) -> None:
    assert read_labels(tmp_path) is None


# ---- hostile inputs ----


def png_that_claims(width: int, height: int) -> bytes:
    head = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )


def encoded(kind: str, side: int = 12, **options: object) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.fixture(scope="module")
def signatures(folder: Path):
    loaded = tf.saved_model.load(str(folder))
    yield loaded.signatures
    del loaded


PNG, JPEG = encoded("PNG"), encoded("JPEG")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "found an empty batch"),
        ([b""], "expected JPEG or PNG"),
        ([encoded("GIF")], "expected JPEG or PNG"),
        ([JPEG[:100]], "JPEG"),
        ([PNG[:20]], f"of 1 to {MAX_PIXELS:,} pixels"),
        ([PNG[:40]], "PNG"),
        ([png_that_claims(20_000, 20_000)], r"found height, width:.*20000 20000"),
        ([png_that_claims(2**31 - 1, 2**31 - 1)], "found height, width"),
        ([png_that_claims(2**32 - 1, 2**32 - 1)], "found height, width"),
        ([png_that_claims(0, 5)], "found height, width"),
        ([png_that_claims(4000, 4001)], "found height, width"),
        # After the first pass it would be as wide as the model.
        ([png_that_claims(1, 2_000_001)], "found height, width"),
        ([png_that_claims(4000, 4000)] * 5, "64,000,000 pixels in all images.*80000000"),
        ([jpeg_that_claims(65_500, 65_500)], "found height, width"),
        ([PNG, JPEG, png_that_claims(20_000, 20_000)], "found height, width"),
    ],
    ids=range(15),
)
def test_bytes_that_mean_harm_are_refused(signatures, data: list[bytes], message: str) -> None:
    batch = tf.constant(data, tf.string, [len(data)])
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["image_bytes"](image_bytes=batch)
    good = signatures["image_bytes"](image_bytes=tf.constant([PNG, JPEG]))
    assert np.isfinite(good["logits"]).all()


def test_bombs_are_decoded_one_by_one_and_never_whole(signatures) -> None:
    file = io.BytesIO()
    Image.new("1", (4000, 4000)).save(file, "PNG")
    bomb = file.getvalue()
    assert len(bomb) < 4096
    before = peak_memory(reset=True)
    answer = signatures["image_bytes"](image_bytes=tf.constant([bomb] * 3))
    assert len(answer["label"]) == 3
    # 48 million pixels: as float32 RGB they would be 576 MB.
    assert peak_memory() - before < 150


def peak_memory(reset: bool = False) -> float:
    """Megabytes that this process has held at most, since it was told to begin anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, SIDE, SIDE, 3), np.float32), "found an empty batch"),
        (np.full((2, SIDE, SIDE, 3), np.nan, np.float32), r"values in \[0, 1\]"),
        (np.full((2, SIDE, SIDE, 3), np.inf, np.float32), r"values in \[0, 1\]"),
        (np.full((2, SIDE, SIDE, 3), -0.5, np.float32), r"values in \[0, 1\]"),
        (np.full((2, SIDE, SIDE, 3), 255, np.float32), r"values in \[0, 1\]"),
    ],
    ids=["empty", "NaN", "infinite", "negative", "255"],
)
def test_floats_that_are_no_images_are_refused(
    signatures, images: np.ndarray, message: str
) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["serving_default"](images=tf.constant(images))


@pytest.mark.parametrize(
    "shape", [(SIDE, SIDE, 3), (1, SIDE, SIDE, 1), (1, SIDE, SIDE + 1, 3), (3,)]
)
def test_a_wrong_rank_or_size_is_refused(signatures, shape: tuple[int, ...]) -> None:
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError, TypeError)):
        signatures["serving_default"](images=tf.zeros(shape))


FUZZ = """
import sys, time
import numpy as np, tensorflow as tf
assert "tfrobust" not in sys.modules
serve = tf.saved_model.load({folder!r}).signatures["image_bytes"]
seeds = [open(path, "rb").read() for path in {files!r}]
rng = np.random.default_rng({seed})
good = bad = 0
slowest = 0.0
for i in range({count}):
    data = bytearray(seeds[i % len(seeds)])
    kind = rng.integers(5)
    if kind == 0:
        for at in rng.integers(0, len(data), rng.integers(1, 9)):
            data[at] = rng.integers(256)
    elif kind == 1:
        data = data[: rng.integers(len(data))]
    elif kind == 2:
        at = rng.integers(len(data))
        data[at:at] = rng.bytes(rng.integers(1, 64))
    elif kind == 3:
        a, b = sorted(rng.integers(0, len(data), 2))
        del data[a:b]
    else:
        # The header is where sizes and types are claimed.
        at = rng.integers(0, min(64, len(data)))
        data[at] = rng.integers(256)
    begin = time.perf_counter()
    try:
        out = serve(image_bytes=tf.constant([bytes(data)]))["logits"].numpy()
        assert np.isfinite(out).all()
        good += 1
    except tf.errors.InvalidArgumentError as error:
        assert error.message.strip()
        bad += 1
    slowest = max(slowest, time.perf_counter() - begin)
assert serve(image_bytes=tf.constant([seeds[0]]))["logits"].shape == (1, 3)
assert slowest < 20, slowest
print(good, "answered,", bad, "refused, slowest", round(slowest, 2), "s")
"""


def fuzz(folder: Path, tmp_path: Path, count: int, seed: int) -> str:
    """Mutated images through the signatures, in a process of its own: none may end it."""
    made = {"a.png": PNG, "b.jpg": JPEG, "c.jpg": encoded("JPEG", 40, progressive=True),
            "d.png": encoded("PNG", 33, optimize=True)}  # fmt: skip
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / name) for name in made]
    # The process answers the warm-up requests first: it knows plain TensorFlow only.
    code = ANSWERS.format(folder=str(folder))
    code += FUZZ.format(folder=str(folder), files=files, count=count, seed=seed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_plain_tensorflow_answers_the_warm_up_and_answers_or_refuses_mutated_images(
    folder: Path, tmp_path: Path
) -> None:
    answered, _, refused, *_ = fuzz(folder, tmp_path, 150, seed=0).split()
    assert int(answered) > 5 and int(refused) > 40


@pytest.mark.slow
def test_ten_thousand_mutated_images_are_answered_or_refused(folder: Path, tmp_path: Path) -> None:
    answered, _, refused, *_ = fuzz(folder, tmp_path, 10_000, seed=1).split()
    assert int(answered) + int(refused) == 10_000 and int(answered) > 500
