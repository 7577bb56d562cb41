"""A .tflite or .onnx file is the same function of images as what it was made of."""

from __future__ import annotations

import importlib
import os
import sys

import numpy as np
import pytest

from tfrobust.attacks.square import Square
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.models.classifier import as_classifier
from tfrobust.models.opening import load_any
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(6, 8, 8, 3)).astype("float32")
# Logits are the mean colours times these.
WEIGHTS = RNG.normal(size=(3, 4)).astype("float32")
LOGITS = X.mean(axis=(1, 2)) @ WEIGHTS


def onnx_file(path, nodes=(), shape=("N", 3, 8, 8), kind=1, outputs=("out",), more=(), inputs=()):
    """Global average, flattened, times WEIGHTS, between further nodes: 'in' -> 'last' -> 'out'."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make = onnx.helper.make_node
    core = [make("GlobalAveragePool", ["images"], ["mean"]), make("Flatten", ["mean"], ["flat"]),
            make("MatMul", ["flat", "weights"], ["last"])]  # fmt: skip
    before = [one for one in nodes if "images" in one.output]
    after = [one for one in nodes if "images" not in one.output]
    after = after or [make("Identity", ["last"], ["out"])]
    ends = [
        [onnx.helper.make_tensor_value_info(name, kind, shape)
         for name in ("in" if before else "images", *inputs)],
        [onnx.helper.make_tensor_value_info(name, 1, None) for name in outputs],
    ]  # fmt: skip
    weights = [onnx.numpy_helper.from_array(WEIGHTS, "weights"), *more]
    graph = onnx.helper.make_graph([*before, *core, *after], "g", *ends, weights)
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("mine", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def node(kind, *ends, **attributes):
    return pytest.importorskip("onnx").helper.make_node(kind, *ends, **attributes)


def opened(path, x=X):
    made = as_classifier(load_any(path), x)
    return made, np.asarray(made(x))


def noted(made, *words):
    return any(all(word in note for word in words) for note in made.notes)


@pytest.mark.parametrize("shape", [("N", 3, 8, 8), (None, 3, None, None), (None,) * 4])
def test_channels_first_is_found_by_sizes_or_by_the_first_operation(tmp_path, shape):
    made, logits = opened(onnx_file(tmp_path / "m.onnx", shape=shape))
    np.testing.assert_allclose(logits, LOGITS, atol=1e-5)
    assert made.classes == 4 and not made.has_gradient
    assert noted(made, "[C, H, W]", "operation" if shape[1] is None else "sizes")


def test_channels_last_is_what_a_transposing_graph_takes(tmp_path):
    first = node("Transpose", ["in"], ["images"], perm=[0, 3, 1, 2])
    made, logits = opened(onnx_file(tmp_path / "m.onnx", [first], shape=(None,) * 4))
    np.testing.assert_allclose(logits, LOGITS, atol=1e-5)
    assert not noted(made, "[C, H, W]")


def test_probabilities_are_inverted_and_told(tmp_path):
    made, logits = opened(onnx_file(tmp_path / "m.onnx", [node("Softmax", ["last"], ["out"])]))
    np.testing.assert_allclose(logits - logits[:, :1], LOGITS - LOGITS[:, :1], atol=1e-4)
    assert noted(made, "softmax", "inverted")
    # As many sigmoids, whose outputs happen to look like any numbers.
    made, logits = opened(onnx_file(tmp_path / "s.onnx", [node("Sigmoid", ["last"], ["out"])]))
    np.testing.assert_allclose(logits, LOGITS, atol=1e-4)
    assert made.independent


def test_small_logits_of_a_plain_sum_are_no_probabilities(tmp_path):
    small = [node("Mul", ["last", "tiny"], ["out"])]
    onnx = pytest.importorskip("onnx")
    tiny = [onnx.numpy_helper.from_array(np.float32(1e-3), "tiny")]
    _, logits = opened(onnx_file(tmp_path / "m.onnx", small, more=tiny))
    np.testing.assert_allclose(logits, 1e-3 * LOGITS, atol=1e-7)


def test_whole_numbers_are_0_to_255(tmp_path):
    first = node("Cast", ["in"], ["images"], to=1)
    made, logits = opened(onnx_file(tmp_path / "m.onnx", [first], kind=2))
    np.testing.assert_allclose(logits, np.round(X * 255).mean(axis=(1, 2)) @ WEIGHTS, rtol=1e-4)
    assert noted(made, "0..255", "type") and noted(made, "uint8", "rounded") and made.range_known


@pytest.mark.parametrize("dtype", [11, 10])
def test_other_floats_are_cast(tmp_path, dtype):
    first = node("Cast", ["in"], ["images"], to=1)
    _, logits = opened(onnx_file(tmp_path / "m.onnx", [first], kind=dtype))
    np.testing.assert_allclose(logits, LOGITS, atol=1e-2)


def test_a_fixed_batch_is_filled_up(tmp_path):
    made, logits = opened(onnx_file(tmp_path / "m.onnx", shape=(4, 3, 8, 8)))
    np.testing.assert_allclose(logits, LOGITS, atol=1e-5)
    assert np.asarray(made(X[:1])).shape == (1, 4)


def test_images_that_depend_on_their_batch_are_shown_alone(tmp_path):
    """As in dynamic quantisation, whose ranges are those of the whole batch."""
    scaled = [
        node("ReduceMax", ["last"], ["top"], keepdims=0),
        node("Div", ["last", "top"], ["out"]),
    ]
    made, logits = opened(onnx_file(tmp_path / "m.onnx", scaled))
    np.testing.assert_allclose(logits, LOGITS / LOGITS.max(axis=1, keepdims=True), rtol=1e-4)
    assert noted(made, "batches of 1")


def external(path, location):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), "further")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return onnx_file(path, more=[tensor])


def test_weights_beside_the_file_are_read_and_none_elsewhere(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path / "secret", folder / "weights"):
        place.write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "secret")
    made, logits = opened(external(folder / "m.onnx", "weights"))
    np.testing.assert_allclose(logits, LOGITS, atol=1e-5)
    assert made.inner.further_files == ((folder / "weights").resolve(),)
    for location in ("../secret", str(tmp_path / "secret"), "link", "..\\secret", "", "none"):
        with pytest.raises(TFRobustError):
            load_any(external(folder / "m.onnx", location))


def test_custom_operations_are_refused(tmp_path):
    for kind, domain in (("Steal", "mine"), ("EPContext", "com.microsoft")):
        custom = node(kind, ["last"], ["out"], domain=domain)
        with pytest.raises(TFRobustError, match=kind):
            load_any(onnx_file(tmp_path / "m.onnx", [custom]))
    # Also inside of a branch.
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info("o", 1, None)
    branch = onnx.helper.make_graph(
        [node("Steal", ["last"], ["o"], domain="mine")], "b", [], [info]
    )
    yes = [onnx.numpy_helper.from_array(np.array(True), "yes")]
    either = node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    with pytest.raises(TFRobustError, match="Steal"):
        load_any(onnx_file(tmp_path / "m.onnx", [either], more=yes))


def test_several_ends_are_refused_but_for_one_of_logits(tmp_path):
    both = [node("Identity", ["last"], ["logits"]), node("Relu", ["last"], ["other"])]
    _, logits = opened(onnx_file(tmp_path / "m.onnx", both, outputs=("other", "logits")))
    np.testing.assert_allclose(logits, LOGITS, atol=1e-5)
    both[0].output[0] = "first"
    for more in ({"nodes": both, "outputs": ("first", "other")}, {"inputs": ("mask",)}):
        with pytest.raises(TFRobustError):
            load_any(onnx_file(tmp_path / "m.onnx", **more))


def test_what_is_no_model_is_told(tmp_path):
    for name in ("m.onnx", "m.tflite"):
        with pytest.raises(UsageError):
            load_any(tmp_path / name)
        for content in (b"", b"nothing", b"\x1c\x00\x00\x00TFL3" + bytes(40)):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(TFRobustError):
                load_any(tmp_path / name)
        os.truncate(tmp_path / name, (2 << 30) + 1)  # holds no bytes on disk
        with pytest.raises(TFRobustError, match="bytes"):
            load_any(tmp_path / name)


def test_images_of_another_size_and_ends_that_are_no_images_are_told(tmp_path):
    path = onnx_file(tmp_path / "m.onnx")
    for x in (X[:, :4], X[..., :1]):
        with pytest.raises(TFRobustError):
            as_classifier(load_any(path), x)
    for wrong in ({"shape": (None, 5)}, {"kind": 8}, {"kind": 9}):
        with pytest.raises(TFRobustError):
            load_any(onnx_file(tmp_path / "m.onnx", **wrong))


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch):
    path = onnx_file(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TFRobustError, match="pip install"):
        load_any(path)


def test_attacks_on_outputs_run_on_it_and_others_are_refused(tmp_path):
    from tfrobust.attacks.gradient import PGD

    model, y = load_any(onnx_file(tmp_path / "m.onnx")), LOGITS.argmax(axis=1)
    made = Square(queries=5).perturb(model, X, y, ThreatModel("linf", 0.3))
    assert 0 < np.abs(made - X).max() <= 0.3 + 1e-6
    logits = np.asarray(as_classifier(model, X)(made))
    np.testing.assert_allclose(logits, made.mean(axis=(1, 2)) @ WEIGHTS, atol=1e-5)
    with pytest.raises(UsageError):
        PGD(steps=1).perturb(model, X, y, ThreatModel("linf", 0.1))


def tflite_file(path, function, *, shape=(None, 8, 8, 3), prepare=lambda converter: None):
    spec = tf.TensorSpec(shape, tf.float32)
    graph = tf.function(function, input_signature=[spec]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph])
    prepare(converter)
    path.write_bytes(converter.convert())
    return path


def plain(x):
    return tf.matmul(tf.reduce_mean(x, axis=[1, 2]), WEIGHTS)


def whole_numbers(kind):
    def prepare(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [one[None]] for one in (*X, 0 * X[0], 0 * X[0] + 1)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = kind

    return prepare


@pytest.mark.parametrize("kind", [tf.uint8, tf.int8])
def test_a_quantised_file_says_its_range_and_its_steps(tmp_path, kind):
    path = tflite_file(tmp_path / "m.tflite", lambda x: tf.nn.softmax(plain(x)),
                       prepare=whole_numbers(kind))  # fmt: skip
    made, logits = opened(path)
    expected = tf.nn.softmax(LOGITS).numpy()
    # 256 steps, of the input, the weights and the output.
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=0.02)
    assert noted(made, kind.name, "rounded") and noted(made, "softmax", "inverted")
    assert made.range_known and made.inner.pixel_range.is_plain
    # What is less than a step is half of one, and no minus infinity.
    sure = np.asarray(made(np.clip(1e3 * (X - 0.5), 0, 1)))
    assert np.isfinite(sure).all() and sure.min() >= np.log(1 / 512) - 1e-3


def test_other_ranges_of_quantised_inputs_are_found_or_told(tmp_path):
    from tfrobust.models.exported import Ends, ExportedModel

    class Nothing:
        name, further_files = "x", ()

        def __init__(self, scale, zero):
            self.ends = Ends((None, 8, 8, 3), np.dtype(np.uint8), scale, zero)

    def settled(*quantised):
        return ExportedModel(tmp_path / "m", Nothing(*quantised))

    assert settled(1.0, 0).pixel_range.input_range == (0, 255)
    assert settled(1 / 127.5, 128).pixel_range.input_range == (-1, 1)
    assert settled(0.0038, 0).pixel_range.input_range == (0, 1)
    other = settled(0.0187, 114)  # standardised by ImageNet's numbers
    assert other.pixel_range is None and any("--input-mean" in note for note in other.notes)


def test_a_graph_of_one_image_is_shown_one_at_a_time(tmp_path):
    weights = np.tile(WEIGHTS / 64, [64, 1])

    def of_one(x):
        return tf.matmul(tf.reshape(x, [1, 192]), weights)

    path = tflite_file(tmp_path / "m.tflite", of_one, shape=(1, 8, 8, 3))
    made, logits = opened(path)
    np.testing.assert_allclose(logits, LOGITS, atol=1e-5)
    assert noted(made, "batches of 1")


@pytest.mark.parametrize("wrong", ["custom", "huge"])
def test_custom_operations_and_tensors_beyond_measure_are_refused(tmp_path, wrong):
    flatbuffers = pytest.importorskip("flatbuffers")
    path = tflite_file(tmp_path / "m.tflite", plain)
    schema = importlib.import_module("tensorflow.lite.python.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    if wrong == "custom":
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = 32
        code.customCode = b"FlexReadFile"
    else:
        model.subgraphs[0].tensors[-1].shape = [1 << 20, 1 << 20]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(TFRobustError, match="FlexReadFile" if wrong == "custom" else "elements"):
        load_any(path)
